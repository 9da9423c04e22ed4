package sqltext

// insert reads INSERT and REPLACE in the forms of the three databases.
func (p *parser) insert(top bool) Operation {
	p.st.writes = true
	p.next()
	for p.cur().kw != kwInto && p.insertWord() {
		p.next()
	}
	p.accept(kwInto)
	t, ok := p.tableName()
	if !ok {
		return Unknown
	}
	p.st.Writes = append(p.st.Writes, t)
	if p.accept(kwAs) {
		p.next()
	}
	if top {
		p.inserted = p.pos
	}
	if p.cur().kind == kLParen && !p.queryStart(1) && p.at(1).kind != kLParen {
		p.skipParens()
	}
	if p.cur().kw == kwWith && p.enter() {
		p.query(false)
		p.depth--
	} else {
		p.clauses(clauseState{insert: true})
	}
	return Insert
}

// insertWord reports whether the word at hand may stand between INSERT and INTO.
func (p *parser) insertWord() bool {
	t := p.cur()
	switch t.kw {
	case kwOr, kwReplace, kwRollback, kwAbort:
		return true
	}
	if t.kind != kWord || p.at(1).kind == kLParen {
		return false
	}
	for _, w := range [...]string{"IGNORE", "FAIL", "LOW_PRIORITY", "HIGH_PRIORITY", "DELAYED"} {
		if isWord(p.src(t), w) {
			return true
		}
	}
	return false
}

// update reads UPDATE, MySQL's on several tables included.
func (p *parser) update(top bool) Operation {
	p.st.writes = true
	p.next()
	if p.accept(kwOr) { // SQLite's UPDATE OR IGNORE
		p.next()
	}
	for p.at(1).kw != kwSet && p.at(1).kw != kwAs && p.insertWord() {
		p.next()
	}
	s := clauseState{top: top, from: true, sink: &p.st.Writes}
	p.fromItem(&s)
	p.clauses(s)
	return Update
}

// delete reads DELETE, MySQL's on several tables included: there each table named
// counts as written.
func (p *parser) delete(top bool) Operation {
	p.st.writes = true
	p.next()
	for p.cur().kw != kwFrom && (p.cur().kind == kWord || p.cur().kind == kQuoted || p.cur().kind == kDot || p.cur().kind == kComma || p.cur().kind == kOp) {
		p.next()
	}
	if !p.accept(kwFrom) {
		p.failed = true
		return Unknown
	}
	s := clauseState{top: top, from: true, using: true, sink: &p.st.Writes}
	p.fromItem(&s)
	if p.cur().kw == kwJoin || p.cur().flags&fReserved != 0 && p.cur().kw == kwPlain {
		s.using = false // DELETE a FROM a JOIN b USING (c)
	}
	p.clauses(s)
	return Delete
}

// merge reads MERGE. What its WHEN clauses do is done to the target.
func (p *parser) merge() Operation {
	p.st.writes = true
	p.next()
	p.accept(kwInto)
	s := clauseState{merge: true, using: true, sink: &p.st.Writes}
	p.fromItem(&s)
	p.clauses(s)
	return Merge
}

// target appends the table named at hand to Writes, if there is one.
func (p *parser) target() {
	if !atName(p.cur()) {
		p.st.Opaque = true
		return
	}
	if t, ok := p.tableName(); ok {
		p.st.Writes = append(p.st.Writes, t)
	}
}

// targets reads a list of tables, each with ONLY before it or "*" behind.
func (p *parser) targets() {
	for !p.failed {
		p.accept(kwOnly)
		p.target()
		if p.cur().kind == kOp && p.src(p.cur()) == "*" {
			p.next()
		}
		if p.cur().kind != kComma {
			return
		}
		p.next()
	}
}

// ifExists steps over IF EXISTS and IF NOT EXISTS.
func (p *parser) ifExists() {
	if p.accept(kwIf) {
		p.accept(kwNot)
		p.accept(kwExists)
	}
}

// skip steps to the end of the statement and reports whether it said CASCADE.
func (p *parser) skip() (cascade bool) {
	for ; p.cur().kind != kEOF && p.cur().kind != kSemi; p.next() {
		cascade = cascade || p.cur().kw == kwCascade
	}
	return cascade
}

func (p *parser) truncate() Operation {
	p.st.writes = true
	p.next()
	p.accept(kwTable)
	p.targets()
	p.st.Opaque = p.skip() || p.st.Opaque
	return Truncate
}

// copy reads COPY. Its protocol is its own, so that even COPY TO is no read that
// could be routed; only COPY FROM writes.
func (p *parser) copy() Operation {
	p.next()
	if p.cur().kind == kLParen {
		p.paren()
		p.skip()
		return Copy
	}
	if next := p.at(1); next.kind == kQuoted || next.kind == kWord && next.kw != kwFrom && next.kw != kwTo {
		p.acceptWord("BINARY") // the form before 7.3, still taken
	}
	t, ok := p.tableName()
	if !ok {
		return Unknown
	}
	p.skipParens()
	if p.cur().kw == kwFrom {
		p.st.writes = true
		p.st.Writes = append(p.st.Writes, t)
	} else {
		p.st.Reads = append(p.st.Reads, t)
	}
	p.skip()
	return Copy
}
