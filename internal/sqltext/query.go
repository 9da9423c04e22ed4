package sqltext

// queryStart reports whether the token n places on begins a query or a statement
// that may stand in parentheses.
func (p *parser) queryStart(n int) bool {
	after := p.at(n + 1)
	switch p.at(n).kw {
	case kwSelect, kwWith, kwTable:
		return true
	case kwValues:
		return after.kind == kLParen || after.kind == kWord
	case kwInsert, kwMerge, kwReplace:
		return after.kind == kWord && after.kw != kwAs
	case kwDelete, kwUpdate:
		return after.kind == kWord || after.kind == kQuoted
	}
	return false
}

// query reads a query with its CTEs up to its closing parenthesis, semicolon or
// the text's end. top is for the outermost one.
func (p *parser) query(top bool) Operation {
	if !top {
		grouping := p.grouping
		p.sub, p.grouping = p.sub+1, false
		defer func() { p.sub, p.grouping = p.sub-1, grouping }()
	}
	if p.cur().kw != kwWith {
		return p.queryBody(top)
	}
	p.next()
	recursive := p.accept(kwRecursive)
	if p.ctes == nil {
		p.ctes = make(map[string]int)
	}
	var names []string
	reads := len(p.st.Reads)
	for !p.failed {
		if !atName(p.cur()) {
			p.failed = true
			break
		}
		name := p.ident(p.cur())
		p.next()
		p.skipParens()
		if !p.accept(kwAs) {
			p.failed = true
			break
		}
		p.accept(kwNot)
		p.accept(kwMaterialized)
		if p.cur().kind != kLParen {
			p.failed = true
			break
		}
		p.paren()
		// A CTE is in sight of those after it; its own body still means the table.
		names = append(names, name)
		p.ctes[name]++
		p.searchOrCycle()
		if p.cur().kind != kComma {
			break
		}
		p.next()
	}
	if recursive {
		// There the bodies see all names, also their own and later ones.
		kept := p.st.Reads[:reads]
		for _, t := range p.st.Reads[reads:] {
			if t.Schema != "" || p.ctes[t.Name] == 0 {
				kept = append(kept, t)
			}
		}
		p.st.Reads = kept
	}
	op := Unknown
	if !p.failed {
		op = p.queryBody(top)
	}
	for _, name := range names {
		p.ctes[name]--
	}
	return op
}

// searchOrCycle steps over SEARCH … SET … and CYCLE … SET … of a recursive CTE.
func (p *parser) searchOrCycle() {
	if t := p.cur(); t.kind != kWord || !isWord(p.src(t), "SEARCH") && !isWord(p.src(t), "CYCLE") {
		return
	}
	for !p.queryStart(0) {
		switch t := p.cur(); {
		case t.kind == kWord || t.kind == kQuoted || t.kind == kString || t.kind == kNumber:
		case t.kind == kComma && !p.cteAhead():
		default:
			return
		}
		p.next()
	}
}

// cteAhead reports whether after the comma at hand comes "name AS (" or
// "name (columns) AS (", rather than another column of a SEARCH clause.
func (p *parser) cteAhead() bool {
	after := p.at(2)
	return after.kind == kLParen || after.kw == kwAs
}

// queryBody reads what follows the CTEs.
func (p *parser) queryBody(top bool) Operation {
	switch p.cur().kw {
	case kwSelect, kwValues:
		p.clauses(clauseState{top: top, selecting: true})
		return Select
	case kwTable:
		p.clauses(clauseState{top: top, selecting: true})
		return Select
	case kwInsert, kwReplace:
		return p.insert(top)
	case kwUpdate:
		return p.update(top)
	case kwDelete:
		return p.delete(top)
	case kwMerge:
		return p.merge()
	}
	if p.cur().kind == kLParen {
		p.compound = p.compound || top
		p.paren()
		p.clauses(clauseState{top: top, selecting: true})
		return Select
	}
	p.failed = true
	return Unknown
}

// paren reads a parenthesis: a query, or any expression.
func (p *parser) paren() {
	if !p.enter() {
		return
	}
	p.next()
	if p.queryStart(0) {
		p.query(false)
	} else {
		p.clauses(clauseState{inner: true})
	}
	p.closeParen()
	p.depth--
}

func (p *parser) closeParen() {
	if p.cur().kind != kRParen {
		p.failed = true
		return
	}
	p.next()
}

// clauseState is where a run of clauses stands.
type clauseState struct {
	top       bool     // the outermost query
	selecting bool     // a SELECT, whose INTO names a table
	inner     bool     // an expression in parentheses: FROM is a word there, as in extract()
	using     bool     // USING opens a list of tables: DELETE and MERGE
	from      bool     // inside a FROM
	insert    bool     // INSERT, which has ON CONFLICT
	merge     bool     // MERGE, which has THEN INSERT
	sink      *[]Table // where tables of the FROM go; nil is Reads
}

// clauses reads clauses and expressions up to a closing parenthesis, a semicolon
// or the text's end, none of which it takes.
func (p *parser) clauses(s clauseState) {
	for !p.failed {
		t := p.cur()
		switch t.kind {
		case kEOF, kRParen, kSemi:
			p.endWhere(s.top)
			return
		case kLParen:
			p.paren()
		case kComma:
			p.next()
			if s.from {
				p.fromItem(&s)
			}
		case kCast:
			p.next()
			p.pos = typeEnd(p.text, p.toks, p.pos)
		case kString:
			if movingTime(p.src(t)) {
				p.unstable()
			}
			p.next()
		case kQuoted:
			p.name()
		case kWord:
			if t.flags&fCall != 0 && p.at(1).kind == kLParen && p.calls(&s, t) {
				p.call(1)
			} else if t.kw == kwNone || t.kw == kwPlain && t.flags&fClause == 0 || !p.keyword(&s, t) {
				p.name()
			}
		default:
			p.next()
		}
	}
}

// keyword handles the keyword t, or reports that it means nothing here.
func (p *parser) keyword(s *clauseState, t *token) bool {
	if t.kw == kwFrom && (s.inner || p.distinctFrom()) {
		p.next()
		return true
	}
	if t.flags&fClause != 0 && t.kw != kwSet {
		p.endWhere(s.top)
		p.grouping = false
	}
	switch t.kw {
	case kwFrom:
		p.next()
		s.from, s.sink = true, nil
		p.fromItem(s)
	case kwJoin:
		p.next()
		if s.from {
			p.fromItem(s)
		}
	case kwUsing:
		p.next()
		if s.using {
			s.using, s.from, s.sink = false, true, nil
			p.fromItem(s)
		} else if s.from && p.cur().kind == kLParen {
			p.skipParens()
		}
	case kwSelect:
		p.next()
		s.inner, s.from, s.selecting, s.sink = false, false, true, nil
	case kwTable:
		p.next()
		s.inner = false
		p.accept(kwOnly)
		p.fromItem(s)
	case kwWhere:
		p.next()
		s.from = false
		if s.top && !s.inner && p.whereFrom < 0 {
			p.whereFrom, p.whereTo = p.pos, -1
		}
	case kwAs:
		p.next()
		if k := p.cur(); k.kind == kWord {
			p.pos = typeEnd(p.text, p.toks, p.pos) // an alias, or the type of a CAST
		}
	case kwUnion, kwIntersect, kwExcept:
		p.next()
		s.from = false
		p.compound = p.compound || s.top
	case kwGroup:
		p.next()
		s.from = false
		p.grouping = p.cur().kw == kwBy
		if p.sub == 0 { // also WITHIN GROUP
			p.st.Aggregate = true
		}
	case kwLimit, kwFetch:
		p.next()
		s.from = false
		p.st.Limit = p.st.Limit || s.top && !s.inner
	case kwHaving:
		p.next()
		s.from = false
		p.st.Aggregate = p.st.Aggregate || p.sub == 0
	case kwOn:
		p.next()
		if w := p.cur(); s.insert && (isWord(p.src(w), "CONFLICT") || isWord(p.src(w), "DUPLICATE")) {
			s.from = false
			p.next()
		}
	case kwWindow, kwOrder, kwOffset, kwReturning, kwSet:
		p.next()
		s.from = false
	case kwFor:
		p.next()
		p.lockClause()
		if !s.inner {
			s.from = false
		}
	case kwLock:
		if p.at(1).kw != kwIn {
			return false
		}
		p.endWhere(s.top)
		p.next()
		p.st.Locking = true
	case kwInto:
		p.next()
		if s.selecting && !s.inner {
			p.selectInto()
		}
	case kwCurrent:
		if word := p.src(p.cur()); personal(word) {
			p.st.Unstable = true
		} else {
			p.unstable()
		}
		p.next()
	case kwTablesample:
		p.unstable()
		p.next()
	default:
		return false
	}
	return true
}

// distinctFrom reports whether the FROM at hand belongs to IS [NOT] DISTINCT FROM.
func (p *parser) distinctFrom() bool {
	i := p.pos
	if i < 2 || p.toks[i-1].kw != kwDistinct {
		return false
	}
	before := p.toks[i-2].kw
	return before == kwIs || before == kwNot
}

func (p *parser) endWhere(top bool) {
	if top && p.whereFrom >= 0 && p.whereTo < 0 {
		p.whereTo = p.pos
	}
}

// lockClause reads after FOR.
func (p *parser) lockClause() {
	switch p.cur().kw {
	case kwUpdate, kwShare:
		p.st.Locking = true
	case kwNo: // KEY UPDATE
		p.st.Locking = p.st.Locking || p.at(1).kw == kwKey
	case kwKey: // SHARE
		p.st.Locking = p.st.Locking || p.at(1).kw == kwShare
	}
}

// selectInto reads after the INTO of a SELECT.
func (p *parser) selectInto() {
	p.st.writes, p.st.Creates = true, true
	switch {
	case p.accept(kwTemporary):
		p.st.Session = true
	case p.accept(kwUnlogged):
	}
	p.accept(kwTable)
	if !atName(p.cur()) { // MySQL's INTO @variable and INTO OUTFILE
		p.st.Opaque = true
		return
	}
	if t, ok := p.tableName(); ok {
		p.st.Writes = append(p.st.Writes, t)
	}
}
