"""What the stages meet in: the catalogue of topics, the Avro codec, the schema ids, the Kafka clients.

Knows the records of `pipeline.model` and nothing of who writes or reads them.
"""
