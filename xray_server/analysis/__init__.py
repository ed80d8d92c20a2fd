"""The questions behind the questions: one file each, pure functions over stage documents and candidate columns."""
