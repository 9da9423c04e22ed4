package sqltext

// name reads a column, a function call or a word without meaning.
func (p *parser) name() {
	parts := 1
	for p.at(1).kind == kDot && (p.at(2).kind == kWord || p.at(2).kind == kQuoted) {
		p.next()
		p.next()
		parts++
	}
	if p.at(1).kind != kLParen || parts == 1 && p.cur().flags&fNoCall != 0 {
		p.next()
		return
	}
	p.call(parts)
}

// call reads the call of a function from the last part of its name on.
func (p *parser) call(parts int) {
	last := p.cur()
	p.next()
	schema := ""
	if parts > 1 {
		schema = p.ident(&p.toks[p.pos-3])
	}
	aggregate := p.function(schema, last)
	grouping := p.grouping
	p.grouping = false
	p.paren()
	p.grouping = grouping
	if aggregate && p.sub == 0 && !(p.cur().kind == kWord && isWord(p.src(p.cur()), "OVER")) {
		p.st.Aggregate = true
	}
}

// calls reports whether t, a word of the grammar that may also name a function,
// does so here, before a parenthesis: it does where an operand is expected.
func (p *parser) calls(s *clauseState, t *token) bool {
	if p.pos == 0 {
		return false
	}
	before := &p.toks[p.pos-1]
	if before.kw == kwNot && p.pos > 1 {
		before = &p.toks[p.pos-2] // x NOT LIKE (…)
	}
	switch before.kind {
	case kQuoted, kString, kNumber, kParam, kRParen, kRBracket:
		return false
	case kWord:
		if before.flags&fPrefix == 0 {
			return false
		}
	}
	switch t.kw {
	case kwBy:
		return before.kw != kwGroup && before.kw != kwOrder
	case kwInsert:
		return !s.merge // WHEN NOT MATCHED THEN INSERT (…)
	}
	switch word := p.src(t); {
	case isWord(word, "CUBE"), isWord(word, "ROLLUP"):
		return !p.grouping
	case isWord(word, "OPERATOR"): // OPERATOR(schema.+)
		n := 2
		for ; p.at(n).kind == kWord || p.at(n).kind == kQuoted || p.at(n).kind == kDot; n++ {
		}
		return p.at(n).kind != kOp || p.at(n+1).kind != kRParen
	}
	return true
}

// function notes a call and reports whether it is an aggregate.
func (p *parser) function(schema string, name *token) bool {
	var f *function
	if schema == "" || schema == "pg_catalog" {
		if src := p.src(name); name.kind == kWord && len(src) <= 64 {
			var buf [64]byte
			for i := range len(src) {
				c := src[i]
				if 'A' <= c && c <= 'Z' {
					c += 'a' - 'A'
				}
				buf[i] = c
			}
			f = functions()[string(buf[:len(src)])]
		} else {
			f = functions()[p.ident(name)]
		}
		schema = ""
	}
	if f == nil {
		full := p.ident(name)
		if schema != "" {
			full = schema + "." + full
		}
		p.st.Functions = append(p.st.Functions, full)
		p.st.UnknownFunctions = append(p.st.UnknownFunctions, full)
		return false
	}
	p.st.Functions = append(p.st.Functions, f.name)
	switch {
	case f.personal:
		p.st.Unstable = true
	case f.class != pure || p.at(1).kind == kRParen && (f.name == "date" || f.name == "time"): // SQLite's now
		p.unstable()
	}
	p.st.Volatile = p.st.Volatile || f.class == primary
	p.st.Locking = p.st.Locking || f.locks
	p.st.Session = p.st.Session || f.session
	p.st.Opaque = p.st.Opaque || f.opaque
	if f.foreign {
		p.st.UnknownFunctions = append(p.st.UnknownFunctions, f.name)
	}
	return f.aggregate
}
