package sqltext

import "slices"

// kind is the lexical class of a token.
type kind uint8

const (
	kEOF    kind = iota
	kWord        // unquoted identifier or keyword
	kQuoted      // "x", `x`, U&"x"
	kString      // any string or bit string, dollar quotes included
	kNumber
	kParam // $1, ?, ?1, :name
	kOp    // one operator
	kMaybe // a "?" after an operand; the next token decides
	kLParen
	kRParen
	kLBracket
	kRBracket
	kComma
	kSemi
	kDot
	kCast  // ::
	kColon // of an array slice
)

// token is one token of a text; comments and white space are none.
type token struct {
	start, end int32
	arg        int32 // kParam: the index of its value from 0, or -1 for a named one
	kind       kind
	kw         keyword // kWord: the keyword it is, unless it stands beside a dot
	flags      uint8   // of the keyword
	word       uint8   // 1 + place in keywordList, 0 for none
}

// keyword is a word that the walker, the tokenizer or the shape must know. Words
// that need no name of their own share kwPlain.
type keyword uint8

const (
	kwNone keyword = iota
	kwPlain
	kwAll
	kwAnalyze
	kwAny
	kwArray
	kwAs
	kwBy
	kwCascade
	kwCast
	kwConcurrently
	kwCurrent // CURRENT_DATE and the other calls without parentheses
	kwDelete
	kwDistinct
	kwExcept
	kwExists
	kwFalse
	kwFetch
	kwFor
	kwFrom
	kwGroup
	kwHaving
	kwIf
	kwIn
	kwInsert
	kwIntersect
	kwInto
	kwIs
	kwJoin
	kwKey
	kwLateral
	kwLimit
	kwLock
	kwMaterialized
	kwMerge
	kwNo
	kwNot
	kwNull
	kwOffset
	kwOn
	kwOnly
	kwOr
	kwAnd
	kwOrder
	kwRecursive
	kwReturning
	kwRows
	kwSelect
	kwSet
	kwShare
	kwSome
	kwTable
	kwTablesample
	kwTemporary
	kwTo
	kwTrue
	kwUnion
	kwUnlogged
	kwUpdate
	kwUsing
	kwValues
	kwView
	kwWhere
	kwWindow
	kwWith
	kwOrdinality
	// Those that start a statement only.
	kwAbort
	kwAlter
	kwAttach
	kwBegin
	kwCall
	kwCheckpoint
	kwClose
	kwCluster
	kwComment
	kwCommit
	kwCopy
	kwCreate
	kwDeallocate
	kwDeclare
	kwDescribe
	kwDiscard
	kwDo
	kwDrop
	kwEnd
	kwExecute
	kwExplain
	kwGrant
	kwImport
	kwListen
	kwLoad
	kwMove
	kwNotify
	kwPragma
	kwPrepare
	kwReassign
	kwRefresh
	kwReindex
	kwRelease
	kwReplace
	kwReset
	kwRevoke
	kwRollback
	kwSavepoint
	kwSecurity
	kwShow
	kwStart
	kwTruncate
	kwUnlisten
	kwUse
	kwVacuum
)

const (
	fReserved uint8 = 1 << iota // names no table and no alias
	fNoCall                     // followed by "(" it is no function
	fPrefix                     // what follows begins an operand: a sign or a "?"
	fValue                      // a "?" after it is a parameter, although it may name a column
	fClause                     // ends the clause before it
	fSoft                       // often a column: lower case in shapes
	fCall                       // may name a function in Postgres: see parser.calls
)

type keywordEntry struct {
	name  string
	kw    keyword
	flags uint8
}

const (
	fClauseStart = fReserved | fNoCall | fPrefix | fClause
	fExpr        = fReserved | fNoCall | fPrefix
)

var keywordList = []keywordEntry{
	{"SELECT", kwSelect, fExpr}, {"FROM", kwFrom, fClauseStart}, {"WHERE", kwWhere, fClauseStart},
	{"GROUP", kwGroup, fClauseStart}, {"HAVING", kwHaving, fClauseStart}, {"ORDER", kwOrder, fClauseStart},
	{"LIMIT", kwLimit, fClauseStart}, {"OFFSET", kwOffset, fClauseStart}, {"FETCH", kwFetch, fClauseStart},
	{"FOR", kwFor, fClauseStart}, {"WINDOW", kwWindow, fClauseStart}, {"UNION", kwUnion, fClauseStart},
	{"INTERSECT", kwIntersect, fClauseStart}, {"EXCEPT", kwExcept, fClauseStart}, {"INTO", kwInto, fClauseStart},
	{"RETURNING", kwReturning, fClauseStart}, {"SET", kwSet, fClauseStart | fCall}, {"BY", kwBy, fNoCall | fPrefix | fCall},
	{"VALUES", kwValues, fExpr}, {"WITH", kwWith, fExpr}, {"RECURSIVE", kwRecursive, fNoCall | fCall},
	{"AS", kwAs, fExpr}, {"ON", kwOn, fExpr}, {"USING", kwUsing, fExpr},
	{"JOIN", kwJoin, fReserved | fNoCall | fCall}, {"STRAIGHT_JOIN", kwJoin, fReserved | fNoCall | fCall},
	{"LEFT", kwPlain, fReserved}, {"RIGHT", kwPlain, fReserved}, {"FULL", kwPlain, fReserved}, {"INNER", kwPlain, fReserved},
	{"CROSS", kwPlain, fReserved}, {"NATURAL", kwPlain, fReserved}, {"OUTER", kwPlain, fReserved},
	{"LATERAL", kwLateral, fReserved | fNoCall}, {"ONLY", kwOnly, fReserved | fNoCall}, {"ROWS", kwRows, fSoft},
	{"TABLESAMPLE", kwTablesample, fReserved | fCall}, {"ORDINALITY", kwOrdinality, fSoft},
	{"AND", kwAnd, fExpr}, {"OR", kwOr, fExpr}, {"NOT", kwNot, fExpr}, {"IN", kwIn, fExpr}, {"IS", kwIs, fExpr | fCall},
	{"LIKE", kwPlain, fExpr | fCall}, {"ILIKE", kwPlain, fExpr | fCall}, {"SIMILAR", kwPlain, fReserved}, {"BETWEEN", kwPlain, fExpr},
	{"SYMMETRIC", kwPlain, fReserved | fNoCall | fPrefix}, {"ESCAPE", kwPlain, fNoCall | fPrefix | fCall}, {"COLLATE", kwPlain, fReserved},
	{"CASE", kwPlain, fExpr}, {"WHEN", kwPlain, fExpr}, {"THEN", kwPlain, fExpr}, {"ELSE", kwPlain, fExpr},
	{"END", kwEnd, fReserved}, {"NULL", kwNull, fReserved | fNoCall}, {"TRUE", kwTrue, fReserved | fNoCall},
	{"FALSE", kwFalse, fReserved | fNoCall}, {"DEFAULT", kwPlain, fReserved | fNoCall | fPrefix},
	{"ALL", kwAll, fExpr}, {"ANY", kwAny, fExpr}, {"SOME", kwSome, fExpr}, {"EXISTS", kwExists, fNoCall},
	{"DISTINCT", kwDistinct, fExpr}, {"ARRAY", kwArray, fReserved | fNoCall}, {"ROW", kwPlain, fNoCall | fSoft},
	{"CAST", kwCast, fNoCall}, {"TRY_CAST", kwPlain, fNoCall | fCall}, {"TREAT", kwPlain, fNoCall}, {"COLLATION", kwPlain, fNoCall | fSoft | fCall},
	{"OVER", kwPlain, fNoCall | fCall}, {"FILTER", kwPlain, fNoCall | fCall}, {"WITHIN", kwPlain, fNoCall | fCall}, {"PARTITION", kwPlain, fNoCall | fCall},
	{"SETS", kwPlain, fNoCall | fSoft | fCall}, {"CUBE", kwPlain, fNoCall | fCall}, {"ROLLUP", kwPlain, fNoCall | fCall}, {"GROUPING", kwPlain, 0},
	{"MATERIALIZED", kwMaterialized, fNoCall | fCall}, {"OPERATOR", kwPlain, fNoCall | fCall}, {"ASC", kwPlain, fReserved}, {"DESC", kwPlain, fReserved},
	{"NULLS", kwPlain, 0}, {"REGEXP", kwPlain, fNoCall | fPrefix | fCall}, {"RLIKE", kwPlain, fNoCall | fPrefix | fCall}, {"GLOB", kwPlain, fNoCall | fValue | fCall},
	{"MATCH", kwPlain, fNoCall | fValue | fCall}, {"AGAINST", kwPlain, fNoCall | fCall}, {"DIV", kwPlain, fNoCall | fValue | fSoft | fCall}, {"XOR", kwPlain, fNoCall | fValue | fCall},
	{"SEPARATOR", kwPlain, fValue | fSoft}, {"BINARY", kwPlain, fNoCall | fSoft | fCall}, {"INDEX", kwPlain, fNoCall | fCall}, {"KEY", kwKey, fNoCall | fSoft | fCall},
	{"COLUMNS", kwPlain, fNoCall | fSoft | fCall}, {"CONFLICT", kwPlain, fNoCall | fCall}, {"DUPLICATE", kwPlain, 0}, {"NOTHING", kwPlain, 0}, {"CONSTRAINT", kwPlain, fReserved},
	{"PRIMARY", kwPlain, fReserved}, {"FOREIGN", kwPlain, fReserved}, {"REFERENCES", kwPlain, fReserved}, {"UNIQUE", kwPlain, fReserved | fNoCall},
	{"CHECK", kwPlain, fReserved | fNoCall}, {"ISNULL", kwPlain, fReserved}, {"NOTNULL", kwPlain, fReserved},
	{"FIRST", kwPlain, fValue | fSoft}, {"NEXT", kwPlain, fValue | fSoft}, {"INTERVAL", kwPlain, fNoCall | fValue | fSoft},
	{"ZONE", kwPlain, fNoCall | fValue | fSoft | fCall}, {"VARYING", kwPlain, fNoCall | fSoft | fCall}, {"PRECISION", kwPlain, fSoft}, {"TO", kwTo, fNoCall | fPrefix},
	{"NO", kwNo, fSoft}, {"SHARE", kwShare, 0}, {"IF", kwIf, 0}, {"CASCADE", kwCascade, 0}, {"RESTRICT", kwPlain, 0},
	{"CONCURRENTLY", kwConcurrently, fReserved}, {"TEMPORARY", kwTemporary, 0}, {"TEMP", kwTemporary, fSoft}, {"UNLOGGED", kwUnlogged, 0},
	{"TABLE", kwTable, fReserved | fNoCall}, {"VIEW", kwView, 0},
	{"CURRENT_DATE", kwCurrent, fReserved}, {"CURRENT_TIME", kwCurrent, fReserved}, {"CURRENT_TIMESTAMP", kwCurrent, fReserved},
	{"LOCALTIME", kwCurrent, fReserved}, {"LOCALTIMESTAMP", kwCurrent, fReserved}, {"CURRENT_USER", kwCurrent, fReserved},
	{"SESSION_USER", kwCurrent, fReserved}, {"SYSTEM_USER", kwCurrent, fReserved | fCall}, {"CURRENT_ROLE", kwCurrent, fReserved},
	{"CURRENT_CATALOG", kwCurrent, fReserved}, {"CURRENT_SCHEMA", kwCurrent, fReserved | fCall}, {"USER", kwCurrent, fReserved | fSoft},
	{"INSERT", kwInsert, fNoCall | fCall}, {"UPDATE", kwUpdate, fNoCall | fCall}, {"DELETE", kwDelete, fNoCall | fCall}, {"MERGE", kwMerge, fNoCall | fCall},
	{"REPLACE", kwReplace, 0}, {"TRUNCATE", kwTruncate, 0}, {"COPY", kwCopy, 0}, {"CALL", kwCall, 0}, {"DO", kwDo, fReserved},
	{"EXPLAIN", kwExplain, fNoCall | fCall}, {"ANALYZE", kwAnalyze, fNoCall}, {"ANALYSE", kwAnalyze, fNoCall}, {"SHOW", kwShow, 0},
	{"DESCRIBE", kwDescribe, 0}, {"PRAGMA", kwPragma, 0}, {"RESET", kwReset, 0}, {"DISCARD", kwDiscard, 0}, {"USE", kwUse, 0},
	{"BEGIN", kwBegin, 0}, {"START", kwStart, fSoft}, {"COMMIT", kwCommit, 0}, {"ROLLBACK", kwRollback, 0}, {"ABORT", kwAbort, 0},
	{"SAVEPOINT", kwSavepoint, 0}, {"RELEASE", kwRelease, 0}, {"LOCK", kwLock, 0}, {"LISTEN", kwListen, 0}, {"UNLISTEN", kwUnlisten, 0},
	{"NOTIFY", kwNotify, 0}, {"PREPARE", kwPrepare, 0}, {"DEALLOCATE", kwDeallocate, 0}, {"EXECUTE", kwExecute, 0},
	{"DECLARE", kwDeclare, 0}, {"MOVE", kwMove, 0}, {"CLOSE", kwClose, 0}, {"CREATE", kwCreate, fReserved}, {"ALTER", kwAlter, 0},
	{"DROP", kwDrop, 0}, {"GRANT", kwGrant, fReserved}, {"REVOKE", kwRevoke, 0}, {"COMMENT", kwComment, fSoft}, {"REINDEX", kwReindex, 0},
	{"VACUUM", kwVacuum, 0}, {"CLUSTER", kwCluster, 0}, {"CHECKPOINT", kwCheckpoint, 0}, {"REFRESH", kwRefresh, 0},
	{"SECURITY", kwSecurity, 0}, {"IMPORT", kwImport, 0}, {"REASSIGN", kwReassign, 0}, {"LOAD", kwLoad, 0}, {"ATTACH", kwAttach, 0}, {"DETACH", kwAttach, 0},
}

const (
	maxKeyword   = 17 // len("CURRENT_TIMESTAMP")
	keywordSlots = 1024
)

// keywordTable is an open-addressed hash table of 1 + places in keywordList.
var keywordTable = func() (t [keywordSlots]uint8) {
	for i, e := range keywordList {
		h := keywordHash(e.name)
		for t[h] != 0 {
			h = (h + 1) % keywordSlots
		}
		t[h] = uint8(i + 1)
	}
	return t
}()

// keywordHash mixes the length and four letters, with case folded by |0x20.
func keywordHash(s string) uint32 {
	n := len(s)
	h := uint32(n)*0x9E3779B1 ^ uint32(s[0]|0x20)*0x85EBCA6B ^ uint32(s[n-1]|0x20)*0xC2B2AE35 ^
		uint32(s[n/2]|0x20)*0x27D4EB2F ^ uint32(s[n/3]|0x20)*0x165667B1
	return (h ^ h>>15) % keywordSlots
}

// lookup returns 1 + the place in keywordList of the keyword that word is in any
// case, or 0.
func lookup(word string) uint8 {
	if len(word) < 2 || len(word) > maxKeyword {
		return 0
	}
	for h := keywordHash(word); keywordTable[h] != 0; h = (h + 1) % keywordSlots {
		if e := &keywordList[keywordTable[h]-1]; len(e.name) == len(word) && equalFoldUpper(word, e.name) {
			return keywordTable[h]
		}
	}
	return 0
}

// equalFoldUpper reports whether s is upper, an upper-case ASCII word of the same
// length, in any case.
func equalFoldUpper(s, upper string) bool {
	for i := range len(upper) {
		c := s[i]
		if 'a' <= c && c <= 'z' {
			c -= 'a' - 'A'
		}
		if c != upper[i] {
			return false
		}
	}
	return true
}

// isWord reports whether text is word (upper case) in any case.
func isWord(text, word string) bool {
	return len(text) == len(word) && equalFoldUpper(text, word)
}

// foldLower returns s with ASCII letters in lower case, as Postgres folds
// identifiers in UTF-8 databases. It always returns a copy, so that a name does
// not keep a long text alive.
func foldLower(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

// dedupe drops repetitions and keeps the order of first appearance.
func dedupe[T comparable](list []T) []T {
	if len(list) < 2 {
		return list
	}
	out := list[:0]
	if len(list) <= 32 {
		for _, v := range list {
			if !slices.Contains(out, v) {
				out = append(out, v)
			}
		}
		return out
	}
	seen := make(map[T]struct{}, len(list))
	for _, v := range list {
		if _, ok := seen[v]; !ok {
			seen[v] = struct{}{}
			out = append(out, v)
		}
	}
	return slices.Clip(out)
}
