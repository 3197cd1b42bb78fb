//! One replica of one partition: elections, replication and commit.
