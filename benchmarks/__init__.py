"""Measures the server beside a bare grpc.aio server that returns constant bytes.

``python -m benchmarks`` runs everything and prints one table. Absolute times depend on the machine
and on what else it does, so that the figure to look at is the ratio: both servers run at the same
time and are driven in alternating rounds by the same load client.
"""
