package sqltext

// Operation is the kind of a statement.
type Operation uint8

// The operations. Unknown is the zero value: text that could not be read.
const (
	Unknown     Operation = iota
	Select                // SELECT, VALUES, TABLE
	Insert                // INSERT, REPLACE
	Update                // UPDATE
	Delete                // DELETE
	Merge                 // MERGE
	Truncate              // TRUNCATE
	Copy                  // COPY, in either direction
	DDL                   // CREATE, ALTER, DROP, GRANT, REFRESH MATERIALIZED VIEW and the like
	Maintenance           // VACUUM, ANALYZE, REINDEX, CLUSTER, CHECKPOINT, COMMENT: no rows change
	Call                  // CALL
	Do                    // DO
	Explain               // EXPLAIN of anything; with ANALYZE what it executes shows in Writes
	Show                  // SHOW, DESCRIBE, PRAGMA that only asks
	Set                   // SET, RESET, DISCARD, USE, PRAGMA that sets
	Begin                 // BEGIN, START TRANSACTION
	Commit                // COMMIT, END, and PREPARE TRANSACTION
	Rollback              // ROLLBACK, ABORT
	Savepoint             // SAVEPOINT
	RollbackTo            // ROLLBACK TO SAVEPOINT
	Release               // RELEASE SAVEPOINT
	Lock                  // LOCK TABLE
	Listen                // LISTEN, UNLISTEN
	Notify                // NOTIFY
	Prepare               // PREPARE, DEALLOCATE
	Execute               // EXECUTE of a prepared statement
	Cursor                // DECLARE, FETCH, MOVE, CLOSE
	Other                 // known, and none of these: LOAD, ATTACH, …
	operations
)

var operationNames = [operations]string{
	"unknown", "select", "insert", "update", "delete", "merge", "truncate", "copy", "ddl", "maintenance",
	"call", "do", "explain", "show", "set", "begin", "commit", "rollback", "savepoint", "rollback_to",
	"release", "lock", "listen", "notify", "prepare", "execute", "cursor", "other",
}

// String returns the operation as one lower-case word, fit for a metric's label.
func (o Operation) String() string {
	if o >= operations {
		return "unknown"
	}
	return operationNames[o]
}
