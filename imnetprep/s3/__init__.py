"""The one home of S3: buckets through botocore's credentials, endpoints and signatures."""
