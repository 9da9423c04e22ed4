package sqltext

// fromItem reads one item of a FROM with its alias.
func (p *parser) fromItem(s *clauseState) {
	if s.top {
		p.items++
	}
	for p.accept(kwLateral) || p.accept(kwOnly) {
	}
	if p.cur().kw == kwRows && p.at(1).kw == kwFrom {
		p.next()
		p.next()
	}
	t := p.cur()
	if t.kind == kLParen {
		if s.top {
			p.items++ // whatever it holds is not one plain table
		}
		p.fromParen(s)
		p.fromAlias(s)
		return
	}
	if !atName(t) && t.flags&fNoCall != 0 || t.kind != kWord && t.kind != kQuoted {
		p.failed = true
		return
	}
	// A function, also one whose name is reserved, such as left() or current_date.
	n := 1
	for p.at(n).kind == kDot {
		n += 2
	}
	if last := p.at(n - 1); p.at(n).kind == kLParen && (last.flags&fNoCall == 0 || last.flags&fCall != 0) && s.sink == nil {
		if s.top {
			p.items++
		}
		p.pos += n - 1
		p.call((n + 1) / 2)
		p.fromAlias(s)
		return
	}
	if t.kw == kwCurrent && t.flags&fSoft == 0 {
		p.unstable()
		p.next()
		p.fromAlias(s)
		return
	}
	if t.kw == kwCurrent { // a table called user in SQLite or MySQL; Postgres means the function
		p.unstable()
		p.st.Reads = append(p.st.Reads, Table{Name: foldLower(p.src(t))})
		p.next()
		p.fromAlias(s)
		return
	}
	table, ok := p.tableName()
	if !ok {
		return
	}
	if s.sink != nil {
		*s.sink = append(*s.sink, table)
	} else if table.Schema != "" || p.ctes == nil || p.ctes[table.Name] == 0 {
		p.st.Reads = append(p.st.Reads, table)
	} else if s.top {
		p.items++ // a CTE is no table
	}
	if s.top {
		p.single = table
	}
	if p.cur().kind == kOp && p.src(p.cur()) == "*" {
		p.next()
	}
	p.fromAlias(s)
}

// fromParen reads a parenthesis in a FROM: a subquery or joined tables.
func (p *parser) fromParen(s *clauseState) {
	if !p.enter() {
		return
	}
	p.next()
	if p.queryStart(0) {
		p.query(false)
	} else {
		inner := clauseState{from: true, sink: s.sink}
		p.fromItem(&inner)
		p.clauses(inner)
	}
	p.closeParen()
	p.depth--
}

// fromAlias reads what may follow an item: alias, columns, WITH ORDINALITY.
func (p *parser) fromAlias(s *clauseState) {
	if p.failed {
		return
	}
	if p.cur().kw == kwWith && p.at(1).kw == kwOrdinality {
		p.next()
		p.next()
	}
	as := p.accept(kwAs)
	t := p.cur()
	if t.kw == kwLock && p.at(1).kw == kwIn {
		return
	}
	if t.kind == kQuoted || t.kind == kWord && (as || t.flags&fReserved == 0) {
		if s.top {
			p.alias = p.ident(t)
		}
		p.next()
		as = true
	}
	if as && s.sink == nil {
		if s.top && p.cur().kind == kLParen {
			p.items++ // its columns have other names
		}
		p.skipParens()
	}
	if p.accept(kwTablesample) {
		p.unstable()
		p.tableName() // the method
		if p.cur().kind == kLParen {
			p.paren()
		}
		p.acceptWord("REPEATABLE")
	}
}
