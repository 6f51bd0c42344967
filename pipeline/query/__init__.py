"""The API: sessions from ClickHouse, recordings from the objects by byte ranges. Reads only."""
