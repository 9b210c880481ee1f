//! A store in memory with a live and a durable image.
