"""Traffic: bundled real recordings, replayed under new ids and times, and the demo that follows them to the stores."""
