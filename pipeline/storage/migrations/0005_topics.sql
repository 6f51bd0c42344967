-- Which topics an epoch's marks and rows are of: a topic made anew, or another cluster, counts its offsets from 0 again.
CREATE TABLE IF NOT EXISTS {database}.topics
(
    epoch      UInt32,
    name       String,
    topic_id   String,
    cluster_id String,
    at         DateTime64(3, 'UTC') DEFAULT now64(3)
)
ENGINE = MergeTree
ORDER BY (epoch, name)
SETTINGS non_replicated_deduplication_window = 20000;
