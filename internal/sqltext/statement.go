package sqltext

// statements reads the text's statements and keeps the first one's operation.
func (p *parser) statements() {
	for !p.failed {
		for p.cur().kind == kSemi {
			p.next()
		}
		if p.cur().kind == kEOF {
			break
		}
		if p.started {
			p.st.Multiple = true
		}
		op := p.statement(!p.started)
		if op == Unknown {
			p.failed = true
		}
		if !p.started {
			p.started, p.st.Operation = true, op
		}
		if k := p.cur().kind; k != kSemi && k != kEOF {
			p.failed = true
		}
	}
	if !p.started {
		p.failed = true
	}
}

// statement reads one statement up to its semicolon or the text's end.
func (p *parser) statement(top bool) Operation {
	t := p.cur()
	if t.kind == kLParen {
		return p.query(top)
	}
	switch t.kw {
	case kwSelect, kwValues, kwTable, kwWith, kwInsert, kwUpdate, kwDelete, kwMerge, kwReplace:
		return p.query(top)
	case kwTruncate:
		return p.truncate()
	case kwCopy:
		return p.copy()
	case kwExplain:
		return p.explain()
	case kwCreate:
		return p.create()
	case kwAlter:
		return p.alter()
	case kwDrop:
		return p.drop()
	case kwRefresh:
		return p.refresh()
	case kwLock:
		p.st.Locking = true
		p.skip()
		return Lock
	case kwPrepare:
		return p.prepare()
	case kwDeclare:
		return p.cursor()
	}
	return p.simple(t)
}

// simple reads the statements whose first words tell all.
func (p *parser) simple(t *token) Operation {
	second := p.at(1)
	switch t.kw {
	case kwGrant, kwRevoke, kwSecurity, kwImport, kwReassign:
		p.st.Opaque = true
		p.skip()
		return DDL
	case kwVacuum, kwAnalyze, kwReindex, kwCluster, kwCheckpoint, kwComment:
		p.skip()
		return Maintenance
	case kwCall, kwDo, kwExecute:
		p.st.writes, p.st.Opaque = true, true
		p.skip()
		switch t.kw {
		case kwCall:
			return Call
		case kwDo:
			return Do
		}
		return Execute
	case kwShow, kwDescribe:
		p.skip()
		return Show
	case kwPlain: // DESC
		if isWord(p.src(t), "DESC") {
			p.skip()
			return Show
		}
		return Unknown
	case kwPragma:
		return p.pragma()
	case kwSet, kwReset, kwDiscard, kwUse:
		p.st.Session = true
		p.clauses(clauseState{inner: true})
		return Set
	case kwListen, kwUnlisten:
		p.st.Session = true
		p.skip()
		return Listen
	case kwNotify:
		p.st.Volatile = true
		p.skip()
		return Notify
	case kwDeallocate:
		p.st.Session = true
		p.skip()
		return Prepare
	case kwFetch, kwMove, kwClose:
		p.st.Session = true
		p.skip()
		return Cursor
	case kwLoad, kwAttach:
		p.st.Session = true
		p.skip()
		return Other
	case kwBegin, kwStart:
		p.st.Opens = true
		p.skip()
		return Begin
	case kwCommit, kwEnd:
		if isWord(p.src(second), "PREPARED") {
			p.st.Opaque = true // what another session wrote
			p.skip()
			return Commit
		}
		p.st.Commits = true
		p.chain()
		return Commit
	case kwAbort:
		p.chain()
		return Rollback
	case kwRollback:
		op := Rollback
		for i := p.pos; p.toks[i].kind == kWord; i++ {
			if p.toks[i].kw == kwTo {
				op = RollbackTo
			}
		}
		if op == Rollback && !isWord(p.src(second), "PREPARED") {
			p.chain()
		} else {
			p.skip()
		}
		return op
	case kwSavepoint, kwRelease:
		if second.kind != kWord && second.kind != kQuoted && second.kind != kParam {
			return Unknown
		}
		p.skip()
		if t.kw == kwSavepoint {
			return Savepoint
		}
		return Release
	}
	return Unknown
}

// chain reads to the end of a statement that ends a transaction, AND CHAIN another.
func (p *parser) chain() {
	p.st.Opens = false
	for ; p.cur().kind != kEOF && p.cur().kind != kSemi; p.next() {
		if p.cur().kw == kwAnd {
			p.st.Opens = p.at(1).kind == kWord && isWord(p.src(p.at(1)), "CHAIN")
		}
	}
}

// explain reads EXPLAIN in Postgres' two forms, SQLite's QUERY PLAN and MySQL's
// FORMAT=JSON. Unless it says ANALYZE nothing of the statement is executed.
func (p *parser) explain() Operation {
	p.next()
	analyze := false
	switch {
	case p.cur().kind == kLParen && !p.queryStart(1) && p.at(1).kind != kLParen:
		analyze = p.explainOptions()
	default:
		for p.cur().kind == kWord && !p.queryStart(0) && !p.explainable() {
			analyze = analyze || p.cur().kw == kwAnalyze
			p.next()
			if k := p.cur(); k.kind == kOp && p.src(k) == "=" {
				p.next()
				p.next()
			}
		}
	}
	before := *p.st
	execute := p.cur().kw == kwExecute
	inner := p.explained()
	if p.failed {
		return Unknown
	}
	if !analyze {
		// The names stay of interest; nothing is written, locked or called.
		after := p.st
		reads := append(after.Reads, after.Writes[len(before.Writes):]...)
		after.Reads, after.Writes = reads, before.Writes
		after.writes, after.Locking, after.Volatile = before.writes, before.Locking, before.Volatile
		after.Session, after.Opaque, after.UnknownFunctions = before.Session || execute, before.Opaque, before.UnknownFunctions
	}
	if inner == Unknown {
		p.skip() // EXPLAIN of a table or a connection
		if analyze {
			return Unknown
		}
	}
	return Explain
}

// explained reads the statement after EXPLAIN's options.
func (p *parser) explained() Operation {
	if p.cur().kind == kLParen || p.queryStart(0) || p.explainable() {
		return p.statement(false)
	}
	return Unknown
}

// explainable reports whether at hand is a statement that EXPLAIN takes, besides
// queries and those that queryStart knows.
func (p *parser) explainable() bool {
	switch p.cur().kw {
	case kwCreate, kwDeclare, kwExecute, kwRefresh, kwSelect, kwValues, kwInsert, kwUpdate, kwDelete, kwMerge, kwReplace:
		return true
	}
	return false
}

// explainOptions reads "(ANALYZE, BUFFERS off, …)" and keeps it as written in the
// shape, since a value there changes what the statement is.
func (p *parser) explainOptions() (analyze bool) {
	p.next()
	for p.cur().kind != kEOF && p.cur().kind != kRParen {
		if t := p.cur(); t.kw == kwAnalyze || t.kind == kQuoted && p.ident(t) == "analyze" {
			p.next()
			v := p.src(p.cur())
			off := p.cur().kw == kwFalse || isWord(v, "OFF") || v == "0" || isWord(v, "'OFF'") || isWord(v, "'FALSE'") || v == "'0'"
			analyze = !off
			continue
		}
		p.next()
	}
	p.closeParen()
	p.verbatim = p.pos
	return analyze
}

// pragma reads SQLite's PRAGMA: with a value it may set something.
func (p *parser) pragma() Operation {
	op := Show
	for ; p.cur().kind != kEOF && p.cur().kind != kSemi; p.next() {
		if t := p.cur(); t.kind == kOp && p.src(t) == "=" {
			op = Set
		}
	}
	p.st.Session = true // its forms with an argument set or ask, by name
	return op
}

// inside reports whether the statement goes on, and fails it if it does not.
func (p *parser) inside() bool {
	p.failed = p.failed || p.cur().kind == kEOF || p.cur().kind == kSemi
	return !p.failed
}

func (p *parser) prepare() Operation {
	p.next()
	if p.acceptWord("TRANSACTION") {
		p.st.Commits, p.st.Opens = true, false // when, another statement decides; what it wrote is over here
		p.skip()
		return Commit
	}
	p.st.Session = true
	for p.cur().kw != kwAs && p.cur().kw != kwFrom && p.inside() {
		p.next()
	}
	p.next()
	if p.queryStart(0) || p.cur().kind == kLParen {
		p.query(false)
	} else {
		p.skip()
	}
	return Prepare
}

// cursor reads DECLARE … CURSOR … FOR query.
func (p *parser) cursor() Operation {
	p.st.Session = true
	for p.cur().kw != kwFor && p.inside() {
		p.next()
	}
	p.next()
	if p.queryStart(0) || p.cur().kind == kLParen {
		p.query(false)
	} else {
		p.skip()
	}
	return Cursor
}
