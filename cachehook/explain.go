package cachehook

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"gorm.io/gorm"

	"github.com/gorminfra/infra/internal/hook"
)

// Explanation says what the cache does with one statement.
type Explanation struct {
	// SQL is the statement with its placeholders, Arguments are the types of what
	// stands for them. The values are left out.
	SQL       string   `json:"sql"`
	Arguments []string `json:"arguments,omitempty"`

	// Cacheable: its result is served and kept. Otherwise Reason says in one word
	// why not, and Why in a sentence.
	Cacheable bool   `json:"cacheable"`
	Reason    Reason `json:"reason,omitempty"`
	Why       string `json:"why,omitempty"`

	// By is what asks for the cache, in words: rules of tables, clauses.
	By []string `json:"by,omitempty"`
	// Unseen is what was followed that the text does not show, in words: views,
	// declared functions, policies.
	Unseen []string `json:"unseen,omitempty"`

	// Tables, Rows and Tags are what the result depends on. With Rows it outlives
	// writes of other rows, and Tables count for as long as not all of them are
	// found. Tags are the caller's own.
	Tables []string `json:"tables,omitempty"`
	Rows   []string `json:"rows,omitempty"`
	Tags   []string `json:"tags,omitempty"`

	// MemoryTTL and RedisTTL are the longest that the result is served from each
	// level; up to the share Jitter of each is taken off at random. RedisTTL is 0
	// without Redis. NotFoundTTL stands for both where there are no rows; negative:
	// that is not kept. StaleFor comes on top while it is read anew.
	MemoryTTL   time.Duration `json:"memory_ttl_ns,omitempty"`
	RedisTTL    time.Duration `json:"redis_ttl_ns,omitempty"`
	NotFoundTTL time.Duration `json:"not_found_ttl_ns,omitempty"`
	StaleFor    time.Duration `json:"stale_for_ns,omitempty"`
	Jitter      float64       `json:"jitter,omitempty"`
	// Lease is how late another instance's write may show: 0 without Redis, and
	// [RevalidateAlways].
	Lease time.Duration `json:"lease_ns,omitempty"`

	// Models: in memory the result is kept as the models that are asked for, when its
	// columns are those of the model or of Select. Otherwise its rows are replayed to
	// GORM at each hit.
	Models bool `json:"models"`

	// Key is what else decides which result it is. Nil while nothing is.
	Key *Key `json:"key,omitempty"`

	// Presence is what is kept now; nil where [WithPresence] does not ask for it.
	Presence *Presence `json:"presence,omitempty"`
}

// Explanations are those of several statements, in the order in which they were
// built.
type Explanations []Explanation

// ExplainOption is what [Cache.Explain] does besides.
type ExplainOption uint8

// WithPresence looks where the result is kept now. With Redis it takes a round trip
// for each statement that is cacheable, and a second one where a tag is not known yet:
// what a reader would make known is made known. A payload that cannot be read counts
// as such. Otherwise nothing changes: not what is kept, nor its order, nor another
// number.
const WithPresence ExplainOption = 1

// Explain says of the statements that run builds what the cache does with them, by
// the very decisions that it takes for one that is sent:
//
//	x, err := cache.Explain(db, func(tx *gorm.DB) error { return tx.First(&product, 42).Error })
//	fmt.Println(x)
//
// run gets a session of db and must use it alone. In it statements are built and not
// sent: each finds no rows and succeeds; what it would do with rows, a Preload among
// it, is not explained. A transaction cannot be begun; to explain what runs in one,
// give it as db. A [WarmQuery.Run] may be explained as it is.
//
// Nothing is sent to a database but, where it is not known yet, the question for its
// catalogue, as before the first statement. No limit is charged, no observer told and
// no number changed. It blocks for the catalogue, a second at most, and for what
// WithPresence asks. It is safe for concurrent use.
//
// An error says what of the arguments is wrong, that the cache is closed, disabled or
// not in use yet, that run built no statement, or what run returned; for the last one,
// what was explained before comes with it. That nothing is found is no error.
func (c *Cache) Explain(db *gorm.DB, run func(tx *gorm.DB) error, options ...ExplainOption) (Explanations, error) {
	hub := c.hub.Load()
	switch {
	case db == nil || db.Config == nil || db.Statement == nil:
		return nil, errors.New("cachehook: Explain: db is nil: it must be the *gorm.DB of the cache, or a session of it")
	case run == nil:
		return nil, errors.New("cachehook: Explain: run is nil: it must be a function that builds a statement")
	case db.Error != nil:
		return nil, fmt.Errorf("cachehook: Explain: db has failed before: %w", db.Error)
	case c.fault != nil:
		return nil, c.fault
	case c.cfg.Disabled:
		return nil, errors.New("cachehook: Explain: the cache is disabled by its configuration: nothing is cached")
	case c.closed.Load():
		return nil, errors.New("cachehook: Explain: the cache is closed: nothing is cached")
	case hub == nil:
		return nil, errors.New("cachehook: Explain: the cache is not in use: db.Use comes before")
	}
	for _, o := range options {
		if o != WithPresence {
			return nil, fmt.Errorf("cachehook: Explain: option %d: must be WithPresence", o)
		}
	}
	var mu sync.Mutex // guards all: run may use goroutines
	var all Explanations
	err := hub.Explain(db, run, func(r *hook.Record) {
		x := c.explain(r, len(options) > 0)
		mu.Lock()
		all = append(all, x)
		mu.Unlock()
	})
	mu.Lock()
	defer mu.Unlock()
	none := errors.Is(err, gorm.ErrRecordNotFound) || errors.Is(err, sql.ErrNoRows)
	switch {
	case err != nil && (!none || len(all) == 0):
		return all, fmt.Errorf("cachehook: Explain: %w", err)
	case len(all) == 0:
		return nil, errors.New("cachehook: Explain: run built no statement with the session that it was given")
	}
	return all, nil
}

// explain puts into words what is decided about a statement.
func (c *Cache) explain(r *hook.Record, look bool) Explanation {
	x := Explanation{SQL: r.SQL}
	for _, arg := range r.Args {
		x.Arguments = append(x.Arguments, fmt.Sprintf("%T", arg))
	}
	if x.Reason, x.Why = unservedWords(r); x.Reason != "" {
		return x
	}
	x.By = c.asks(r)
	if x.Reason = c.unasked(r); x.Reason != "" {
		x.Why = c.unaskedWords(x.Reason, r)
		return x
	}
	ctx := r.Context
	var q query
	why, ok := c.decide(ctx, r, &q, nil)
	if q.plan != nil {
		x.Unseen = slices.Clone(q.plan.unseen)
	}
	if !ok {
		x.Reason, x.Why = Reason(reasonNames[why]), c.bypassWords(why, r, &q)
		return x
	}
	x.Cacheable = true
	c.expand(&q)
	x.dependsOn(&q)
	x.MemoryTTL, x.RedisTTL = c.longest(&q, false)
	x.NotFoundTTL, _ = c.longest(&q, true)
	x.StaleFor, x.Jitter = q.stale, jitter
	if c.store == nil {
		x.RedisTTL = 0
	} else {
		x.Lease = c.cfg.Lease
	}
	x.Models = asModels(r)
	x.Key = c.keyOf(ctx, r, &q)
	if look {
		x.Presence = c.peek(ctx, &q)
	}
	return x
}

// dependsOn sorts the tags of an expanded query.
func (x *Explanation) dependsOn(q *query) {
	for _, tag := range q.tags[:len(q.plan.tags)-1] { // expand leaves those before the last
		x.addTag(tag)
	}
	for _, tag := range q.tags[len(q.plan.tags)-1:] {
		if slices.Contains(q.own, tag) && !slices.Contains(q.plan.tags, tag) {
			x.Tags = append(x.Tags, nameOf(tag))
			continue
		}
		x.addTag(tag)
	}
}

func (x *Explanation) addTag(tag string) {
	switch {
	case tag == everyTag || tag == schemaTag:
	case isRow(tag):
		x.Rows = append(x.Rows, nameOf(tag))
	case isTable(tag) && !slices.Contains(x.Tables, nameOf(tag)):
		x.Tables = append(x.Tables, nameOf(tag))
	}
}

// nameOf writes a tag for people: products, products#42.
func nameOf(tag string) string {
	return strings.Replace(strings.TrimPrefix(tag, tablePrefix), rowMark, "#", 1)
}

// Key is what decides, besides the statement with its arguments, times and tags,
// which result is its own.
type Key struct {
	// Database is where it is read: dialect, system identifier, name, as far as
	// they are known.
	Database string `json:"database"`
	// User and Role are those of the session that the catalogue was read in, and
	// Settings those of its settings that change what a statement means or how
	// values are written, search_path among them.
	User     string            `json:"user,omitempty"`
	Role     string            `json:"role,omitempty"`
	Settings map[string]string `json:"settings,omitempty"`
	// Relations are what the names in the text stand for.
	Relations []string `json:"relations"`
	// Tenant is for whom alone it is kept; nil: for all, or for where none is
	// declared.
	Tenant *string `json:"tenant,omitempty"`
	// Destination is the type that is asked for; "rows" where GORM does not say.
	Destination string `json:"destination"`
	// Redis is the name of the key in Redis, "" without.
	Redis string `json:"redis,omitempty"`
}

func (c *Cache) keyOf(ctx context.Context, r *hook.Record, q *query) *Key {
	k := keyOfSpace(q.plan.catalog.space)
	for _, t := range r.Text.Reads {
		name := t.String()
		if rel := q.plan.catalog.read(t); rel != nil {
			name = rel.schema + "." + rel.name
		}
		k.Relations = append(k.Relations, name)
	}
	if who, _ := q.plan.of(c.tenantOf(ctx)); who.declared {
		k.Tenant = &who.key
	}
	k.Destination = nameOfType(destination(r))
	if s, ok := c.store.(*redisStore); ok {
		k.Redis = s.entryKey(l2Name(q.key))
	}
	return k
}

// keyOfSpace reads what leads a key; see readPostgres.
func keyOfSpace(space string) *Key {
	parts := strings.Split(strings.TrimSuffix(space, "|"), "|")
	if parts[0] != "postgres" || len(parts) < 5 {
		return &Key{Database: strings.Join(parts, " ")}
	}
	k := &Key{Database: strings.Join(slices.DeleteFunc(parts[:3:3], func(s string) bool { return s == "" }), " "), User: parts[3], Role: parts[4], Settings: make(map[string]string)}
	for _, setting := range parts[5:] {
		if name, value, ok := strings.Cut(setting, "="); ok {
			k.Settings[name] = value
		}
	}
	return k
}
