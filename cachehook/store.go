package cachehook

import (
	"context"
	"time"
)

// store is what processes share: the tags with their stamps and marks, and the
// second level. Its methods block for at most the budget of Config.Timeout.
type store interface {
	// lookup reads the present stamps of tags, and the entry of that name unless
	// it is empty, in one round trip. Stamps that are missing, or whose mark has
	// run out, are minted, which may take a second one. A marked answer may lack
	// stamps.
	lookup(ctx context.Context, tags []string, entry string) (answer, error)
	// fetch reads the entry alone.
	fetch(ctx context.Context, entry string) (answer, error)
	// put stores an entry.
	put(ctx context.Context, entry string, payload []byte, ttl time.Duration) error
	// mark says that a writer is about to commit. It has run out after a
	// while, unless it is set again. With look it tells besides, of the same round
	// trip, what it saw of schemaTag.
	mark(ctx context.Context, tags []string, writer string, look bool) (glance, error)
	// bump gives the tags new stamps and takes the writer's mark away. See mark for
	// look.
	bump(ctx context.Context, tags []string, writer string, look bool) (glance, error)
	// unmark takes the writer's mark away: it did not commit.
	unmark(ctx context.Context, tags []string, writer string) error
}

// answer is what the store knows.
type answer struct {
	stamps []stamp // in the order of the tags
	marked bool    // a writer is about to commit, or just has
	marks  []int   // of which tags, by their places
	data   []byte  // the entry, nil if there is none
	ttl    time.Duration
}
