"""Workers of each queue, whose function does nothing: programs that `direct_rows` starts. See `progress` for what they print."""
