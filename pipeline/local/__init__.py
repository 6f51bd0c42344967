"""The embedded stack: Kafka from jars on a wheel's JRE, ClickHouse's engine behind its HTTP protocol, one supervisor.

Everything binds to loopback. Data, logs and keys live under REPLAY_HOME; downloads under REPLAY_CACHE.
"""
