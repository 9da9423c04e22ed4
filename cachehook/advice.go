package cachehook

import (
	"strings"

	"github.com/redis/go-redis/v9"
)

// advice says what to do about an answer of Redis, or "".
func advice(err error) string {
	switch {
	case redis.HasErrorPrefix(err, "MOVED"), redis.HasErrorPrefix(err, "ASK"):
		return "the server is a node of a Redis Cluster, and the client is one for a single server: use redis.NewClusterClient, or IsClusterMode of redis.UniversalOptions"
	case redis.HasErrorPrefix(err, "NOPERM"), err != nil && strings.Contains(err.Error(), "The user executing the script can't"):
		return "the user of Redis lacks a right; docs/caching.md lists what is needed"
	case err != nil && strings.Contains(err.Error(), "cluster support disabled"):
		return "the server belongs to no Cluster, and the client is one for a Cluster: use redis.NewClient"
	case redis.HasErrorPrefix(err, "READONLY"):
		return "the server is a replica: give the client the master, or use one for Sentinel"
	}
	return ""
}
