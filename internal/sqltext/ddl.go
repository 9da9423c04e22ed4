package sqltext

// create reads CREATE. A table, view or index names what it changes; of the rest
// (functions, triggers, policies, schemas, …) the effect on tables is not known.
func (p *parser) create() Operation {
	p.st.writes = true
	p.next()
	if p.accept(kwOr) {
		p.accept(kwReplace)
	}
	unique := false
words:
	for {
		switch {
		case p.accept(kwTemporary):
			p.st.Session = true
		case p.accept(kwUnlogged), p.accept(kwRecursive), p.accept(kwMaterialized), p.acceptWord("GLOBAL"), p.acceptWord("LOCAL"),
			p.acceptWord("VIRTUAL"), p.acceptWord("FULLTEXT"):
		case p.acceptWord("UNIQUE"):
			unique = true
		default:
			break words
		}
	}
	switch {
	case p.accept(kwTable), p.accept(kwView):
		p.ifExists()
		p.target()
		p.createdAs()
	case p.acceptWord("INDEX"):
		p.accept(kwConcurrently)
		p.ifExists()
		for p.cur().kw != kwOn && p.cur().kind != kEOF && p.cur().kind != kSemi {
			p.next()
		}
		p.accept(kwOn)
		p.accept(kwOnly)
		p.target()
		p.skip()
	default:
		p.st.Opaque = true
		if unique {
			p.failed = true
		}
		p.skip()
	}
	return DDL
}

// createdAs reads on to the query of CREATE TABLE AS or CREATE VIEW, if any.
func (p *parser) createdAs() {
	for p.cur().kind != kEOF && p.cur().kind != kSemi {
		switch {
		case p.cur().kind == kLParen && !p.queryStart(1):
			p.skipParens()
		case p.accept(kwAs):
			if p.queryStart(0) || p.cur().kind == kLParen {
				p.query(false)
			} else {
				p.st.Opaque = p.st.Opaque || p.cur().kw == kwExecute
			}
		case p.cur().kw == kwFor && p.at(1).kw == kwValues: // of a partition
			p.skip()
		case p.queryStart(0): // MySQL needs no AS
			p.query(false)
		default:
			p.next()
		}
		if p.failed || p.cur().kind == kRParen {
			p.skip()
		}
	}
}

// alter reads ALTER. A new name of a table counts as written too.
func (p *parser) alter() Operation {
	p.st.writes = true
	p.next()
	p.accept(kwMaterialized)
	if !p.accept(kwTable) && !p.accept(kwView) {
		p.st.Opaque = true
		p.skip()
		return DDL
	}
	p.ifExists()
	p.accept(kwOnly)
	p.target()
	if p.acceptWord("RENAME") && p.accept(kwTo) {
		p.target()
	}
	p.st.Opaque = p.skip() || p.st.Opaque
	return DDL
}

func (p *parser) drop() Operation {
	p.st.writes = true
	p.next()
	p.accept(kwTemporary)
	p.accept(kwMaterialized)
	if !p.accept(kwTable) && !p.accept(kwView) {
		p.st.Opaque = true
		p.skip()
		return DDL
	}
	p.ifExists()
	p.targets()
	p.st.Opaque = p.skip() || p.st.Opaque
	return DDL
}

func (p *parser) refresh() Operation {
	p.st.writes = true
	p.next()
	p.accept(kwMaterialized)
	p.accept(kwView)
	p.accept(kwConcurrently)
	p.target()
	p.skip()
	return DDL
}
