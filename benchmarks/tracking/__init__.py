"""What recording predictions costs: throughput with tracking on and off, and while the stream is dead."""
