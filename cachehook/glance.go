package cachehook

import (
	"context"
	"strings"

	"github.com/redis/go-redis/v9"
)

// glance is what was seen of the schema's tag.
type glance struct {
	looked bool
	stamp  stamp // zero: none
	marked bool
}

// changed reports whether the schema may be another one than that of the catalogue
// which carries the stamp. A catalogue without one never is the present schema's.
func (s glance) changed(schema stamp) bool {
	return s.looked && (s.marked || s.stamp != schema || schema == stamp{})
}

// looks reports whether a write of the tags has to look at the schema's tag: not
// when it tells of everything.
func looks(by *catalog, tags []string) bool {
	if by == nil {
		return false
	}
	for _, tag := range tags {
		if tag == everyTag || tag == schemaTag {
			return false
		}
	}
	return true
}

// lookAtSchema adds to a pipeline the look at the schema's tag. A mark that has run
// out counts as one: the catalogue is going to be read again, which does away with it.
func (r *redisStore) lookAtSchema(p redis.Pipeliner, run runner) func() glance {
	if !r.plain { // scripts alone go to masters
		fresh := mint()
		cmd := run(r.scripts.read, r.tagKey(schemaTag), fresh[:], r.tagTTL.Milliseconds())
		return func() glance {
			s := glance{looked: true}
			marked, err := readAnswer(cmd, &s.stamp)
			s.marked = marked || err != nil
			return s
		}
	}
	cmd := p.HGetAll(context.Background(), r.tagKey(schemaTag))
	return func() glance {
		s := glance{looked: true}
		for field, text := range cmd.Val() {
			switch {
			case field == "s":
				s.stamp, _ = stampOf(text)
			case strings.HasPrefix(field, "m:"):
				s.marked = true
			}
		}
		return s
	}
}
