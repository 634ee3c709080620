"""The command lines: ``device-api`` for people, ``device-api-server`` for the daemon."""
