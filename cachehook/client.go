package cachehook

import (
	"context"
	"fmt"
	"reflect"

	"github.com/redis/go-redis/v9"
)

// clusterClient is what a Cluster needs: messages, and what is asked of each master,
// go to nodes. A struct that embeds *redis.ClusterClient has it too.
type clusterClient interface {
	redis.UniversalClient
	ForEachMaster(ctx context.Context, f func(ctx context.Context, node *redis.Client) error) error
	MasterForKey(ctx context.Context, key string) (*redis.Client, error)
	Options() *redis.ClusterOptions
}

var _ clusterClient = (*redis.ClusterClient)(nil)

// singleClient is a client of one server, or of a master that Sentinel names. A struct
// that embeds *redis.Client is one too.
type singleClient interface {
	redis.UniversalClient
	Options() *redis.Options
}

var _ singleClient = (*redis.Client)(nil)

// misfit says what a client must be instead, or nothing. What lies in a struct's
// embedded fields is looked at too, for a struct that embeds redis.UniversalClient
// hides what a Cluster needs. What it cannot see is asked of the server; see
// witness.judge.
func misfit(client redis.UniversalClient) (value, rule string) {
	if client == nil {
		return "", ""
	}
	v := reflect.ValueOf(client)
	name := fmt.Sprintf("a %v", v.Type())
	inner, found := clientIn(v, 0)
	switch {
	case v.Kind() == reflect.Pointer && v.IsNil():
		return "a nil " + v.Type().String(), noClient
	case found && inner.IsNil():
		return fmt.Sprintf("%s over a nil %v", name, inner.Type()), noClient
	case !found && isEmpty(v):
		return name, noClient
	case !found:
		return "", ""
	case inner.Type() != v.Type():
		name += fmt.Sprintf(" over a %v", inner.Type())
	}
	cluster, isCluster := client.(clusterClient)
	switch inner.Type() {
	case reflect.TypeFor[*redis.Ring]():
		return name, "must be a single server, Sentinel or a Cluster: a ring that loses a shard and finds it again serves old values"
	case reflect.TypeFor[*redis.AutoPipeliner]():
		return name, "must be the client that it was made from"
	case reflect.TypeFor[*redis.ClusterClient]():
		if !isCluster {
			return name, "must have its methods ForEachMaster, MasterForKey and Options, as a struct has that embeds *redis.ClusterClient; redis.Hook needs no wrapper"
		}
		if cluster.Options().ClusterSlots != nil {
			return name + " with ClusterSlots", "must find its slots by itself; of servers under Sentinel it must be a redis.NewFailoverClient: the messages of one server and of a Cluster go by different channels"
		}
	}
	return "", ""
}

const noClient = "must be a client, or nil itself"

// maxEmbedded bounds how deep a client may lie in wrappers.
const maxEmbedded = 16

// clientIn finds the first client of go-redis among v and the fields that it embeds,
// a pointer that may be nil.
func clientIn(v reflect.Value, depth int) (client reflect.Value, found bool) {
	if depth > maxEmbedded || !v.IsValid() {
		return v, false
	}
	switch v.Type() {
	case reflect.TypeFor[*redis.Client](), reflect.TypeFor[*redis.ClusterClient](), reflect.TypeFor[*redis.Ring](), reflect.TypeFor[*redis.AutoPipeliner]():
		return v, true
	}
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		return clientIn(v.Elem(), depth+1)
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).Anonymous {
				if client, found = clientIn(v.Field(i), depth+1); found {
					return client, true
				}
			}
		}
	}
	return v, false
}

// isEmpty reports whether v embeds a client's interface without a client in it.
func isEmpty(v reflect.Value) bool {
	v = reflect.Indirect(v)
	if v.Kind() != reflect.Struct {
		return false
	}
	for i := range v.NumField() {
		f := v.Type().Field(i)
		if f.Anonymous && f.Type.Kind() == reflect.Interface && f.Type.Implements(reflect.TypeFor[redis.UniversalClient]()) && v.Field(i).IsNil() {
			return true
		}
	}
	return false
}
