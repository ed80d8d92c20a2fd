"""Rules over stored stages that are looked at again and again, and channels that are told when one begins to hold."""
