"""What fresh stores need before anybody can use them: databases, migrations, buckets."""
