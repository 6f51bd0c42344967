"""The two stores behind ports: ClickHouse (client, migrations) and blob stores (S3, a local directory)."""
