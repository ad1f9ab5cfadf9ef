"""What a dashboard needs: a typed reader of the Redis contract (`schemas/redis.md`), and a live terminal table."""
