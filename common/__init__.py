"""What the stages share. The core is pure: no sockets, no clock, no files."""
