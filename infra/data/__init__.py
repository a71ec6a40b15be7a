"""What is in the platform's stores: databases, migrations, buckets."""
