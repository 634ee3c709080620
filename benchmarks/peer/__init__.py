"""The peer: the same API as Go serves it, and one load client for both servers."""
