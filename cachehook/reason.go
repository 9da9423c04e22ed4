package cachehook

// Reason is one word for why the cache is not used for a statement. Where the
// metric cache_bypasses_total and [Stats.Bypasses] count such statements, it is the
// word that they count under.
type Reason string

// Why the cache has no business with a statement. These are not counted.
const (
	// ReasonStatement: it is no read whose answer tables and parameters decide. It
	// writes, locks, calls a volatile function, or reads a system table.
	ReasonStatement Reason = "statement"
	// ReasonTransaction: it runs in a transaction.
	ReasonTransaction Reason = "transaction"
	// ReasonConnection: it runs on a connection of db.Connection, or on a pool that
	// is not the plugin's.
	ReasonConnection Reason = "connection"
	// ReasonNode: it says of what node, or how fresh, its answer must be.
	ReasonNode Reason = "node"
	// ReasonRule: there is not a rule for each table that it reads, and no clause.
	ReasonRule Reason = "rule"
	// ReasonSkip: its context comes from [Skip], or its [TTL] is negative.
	ReasonSkip Reason = "skip"
	// ReasonSession: a session's role was changed, which stays with a connection of
	// the pool.
	ReasonSession Reason = "session"
	// ReasonClosed: the cache is closed.
	ReasonClosed Reason = "closed"
	// ReasonPaused: the cache is paused, by [Cache.Pause].
	ReasonPaused Reason = "paused"
)

// Why a statement that asks for the cache cannot use it, at all or just now.
const (
	ReasonTable    Reason = "table"    // the catalogue forbids, or does not know a table or function
	ReasonCatalog  Reason = "catalog"  // the catalogue is not known
	ReasonArgument Reason = "argument" // an argument that no key can be made of
	ReasonTag      Reason = "tag"      // a tag that cannot be used
	ReasonSize     Reason = "size"     // the result is too large
	ReasonWriter   Reason = "writer"   // a write of a tag is under way
	ReasonRedis    Reason = "redis"    // Redis does not answer
	ReasonTenant   Reason = "tenant"   // the answer depends on who asks, and there is no tenant
	ReasonRoster   Reason = "roster"   // not all instances know yet that a table is cached
)
