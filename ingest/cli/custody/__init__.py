"""Commands for whoever looks after a store: fsck, backup, restore and recover work on the store itself, export on a service."""
