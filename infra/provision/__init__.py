"""The needs of fresh stores before anybody can use them: databases, migrations, buckets."""
