"""The built-in stage types, one file each; they are plugins through the same hook as a third party's."""
