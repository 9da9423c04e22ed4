package sqltext

import (
	"strings"
	"sync"

	"github.com/cespare/xxhash/v2"
)

const (
	maxText  = 64 << 20 // bytes; longer texts are Unknown by their length alone
	maxDepth = 1000     // parentheses and subqueries; deeper texts are Unknown
)

// parser walks over the tokens of one text, clause by clause. It does not check
// grammar: it finds the places where tables and functions are named. The server
// refuses what is no statement; what matters is never to overlook a write.
type parser struct {
	text   string
	toks   []token
	pos    int
	depth  int
	failed bool
	shaper shaper // its buffers are kept
	st     *Statement

	started  bool           // an operation has been found for the first statement
	sub      int            // queries inside the outermost one that are open
	grouping bool           // inside GROUP BY, where CUBE and ROLLUP are no functions
	moving   bool           // Unstable, and not only by who asks
	ctes     map[string]int // names of the CTEs in sight
	verbatim int            // tokens before it keep their literals in the shape

	// About the outermost query, for Where.
	items              int // things in its FROM
	single             Table
	alias              string
	whereFrom, whereTo int
	compound           bool // UNION and its like

	inserted int // the token after the table of the outermost INSERT, for Upsert; 0: there is none
}

var parsers = sync.Pool{New: func() any { return new(parser) }}

// Parse is [Analyze] without its memory: about 10 ns a byte.
func Parse(text string) *Statement {
	st := &Statement{text: text}
	if len(text) > maxText {
		st.Shape = "…"
		st.Fingerprint = xxhash.Sum64String(st.Shape)
		return st
	}
	p := parsers.Get().(*parser)
	*p = parser{text: text, toks: p.toks[:0], shaper: p.shaper, st: st, whereFrom: -1}
	var ok bool
	p.toks, ok = scan(text, p.toks)
	if ok {
		p.statements()
	}
	if !ok || p.failed {
		*st = Statement{text: text}
		p.verbatim = 0
	} else {
		p.finish()
	}
	st.Shape = p.shape()
	st.Fingerprint = xxhash.Sum64String(st.Shape)
	if cap(p.toks) <= 1<<14 && cap(p.shaper.out) <= 1<<16 && cap(p.shaper.frames) <= 1<<10 { // large ones are not worth keeping
		p.text, p.st, p.ctes = "", nil, nil
		parsers.Put(p)
	}
	return st
}

func (p *parser) finish() {
	st := p.st
	st.Reads, st.Writes = dedupe(st.Reads), dedupe(st.Writes)
	st.Functions, st.UnknownFunctions = dedupe(st.Functions), dedupe(st.UnknownFunctions)
	st.Personal = st.Unstable && !p.moving
	for _, t := range st.Reads {
		st.System = st.System || t.system()
		st.Session = st.Session || t.session()
	}
	if st.Multiple {
		st.Limit, st.Aggregate = false, false
	} else if p.whereFrom >= 0 && p.items == 1 && !p.compound {
		p.predicates()
	} else if st.Operation == Insert && p.inserted > 0 {
		p.upsert(p.inserted)
	}
}

// system reports whether t is a catalogue or temporary table by its name.
func (t Table) system() bool {
	switch strings.ToLower(t.Schema) { // MySQL's is often quoted in upper case
	case "":
		return strings.HasPrefix(t.Name, "pg_") || strings.HasPrefix(t.Name, "sqlite_")
	case "information_schema", "mysql", "performance_schema", "temp":
		return true
	}
	return strings.HasPrefix(t.Schema, "pg_")
}

// session reports whether only one session has the table's rows.
func (t Table) session() bool {
	switch t.Schema {
	case "", "pg_catalog":
		return t.Name == "pg_prepared_statements" || t.Name == "pg_cursors"
	case "temp", "pg_temp":
		return true
	}
	return strings.HasPrefix(t.Schema, "pg_temp_")
}

// cur is the token at hand; kEOF at the end.
func (p *parser) cur() *token { return &p.toks[p.pos] }

// at is the token n places on.
func (p *parser) at(n int) *token { return &p.toks[min(p.pos+n, len(p.toks)-1)] }

func (p *parser) next() {
	if p.pos < len(p.toks)-1 {
		p.pos++
	}
}

// unstable notes that the answer is not decided by tables, parameters and who
// asks.
func (p *parser) unstable() { p.st.Unstable, p.moving = true, true }

// accept steps over the keyword if it is at hand.
func (p *parser) accept(kw keyword) bool {
	if p.cur().kw == kw {
		p.next()
		return true
	}
	return false
}

// acceptWord steps over word, which is no keyword of ours, if it is at hand.
func (p *parser) acceptWord(word string) bool {
	if t := p.cur(); t.kind == kWord && isWord(p.src(t), word) {
		p.next()
		return true
	}
	return false
}

func (p *parser) src(t *token) string { return p.text[t.start:t.end] }

// atName reports whether t can name a table, column or alias.
func atName(t *token) bool {
	return t.kind == kQuoted || t.kind == kWord && t.flags&fReserved == 0
}

// ident is the identifier that t is, as Postgres folds it.
func (p *parser) ident(t *token) string {
	s := p.src(t)
	if t.kind != kQuoted {
		return foldLower(s)
	}
	if s[0] != '"' && s[0] != '`' {
		s = s[2:] // U&"…": its escapes stay as they are written
	}
	q := s[:1]
	s = s[1 : len(s)-1]
	if strings.Contains(s, q) {
		return strings.ReplaceAll(s, q+q, q)
	}
	return strings.Clone(s)
}

// enter counts one level of nesting and fails the text that is too deep.
func (p *parser) enter() bool {
	if p.depth++; p.depth > maxDepth {
		p.failed = true
		p.pos = len(p.toks) - 1
	}
	return !p.failed
}

// tableName reads a table's name with its qualifiers, or fails.
func (p *parser) tableName() (t Table, ok bool) {
	if !atName(p.cur()) {
		p.failed = true
		return t, false
	}
	for {
		t.Schema, t.Name = t.Name, p.ident(p.cur())
		p.next()
		if p.cur().kind != kDot {
			return t, true
		}
		p.next()
		if k := p.cur().kind; k != kWord && k != kQuoted {
			p.failed = true
			return t, false
		}
	}
}

// skipParens steps over a parenthesis that holds names only.
func (p *parser) skipParens() {
	if p.cur().kind != kLParen {
		return
	}
	for depth := 0; ; p.next() {
		switch p.cur().kind {
		case kLParen:
			depth++
		case kRParen:
			if depth--; depth == 0 {
				p.next()
				return
			}
		case kEOF:
			p.failed = true
			return
		}
	}
}
