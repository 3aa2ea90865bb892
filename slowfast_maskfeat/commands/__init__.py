"""The commands of `maskfeat`, one file each: its options, and what it prints."""
