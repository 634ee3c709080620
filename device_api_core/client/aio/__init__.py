"""The client for asyncio: thin drivers of the same requests, answers, rules and store."""
