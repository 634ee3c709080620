"""The gRPC services, the transports that carry them, and the HTTP endpoint."""
