package sqltext

// typeEnd returns the token after the name of a type, or an alias, at i:
// double precision, varchar(10), "my type", s.t[], timestamp(3) with time zone.
func typeEnd(text string, toks []token, i int) int {
	isName := func(j int) bool { return toks[j].kind == kWord || toks[j].kind == kQuoted }
	word := func(j int, w string) bool {
		return toks[j].kind == kWord && isWord(text[toks[j].start:toks[j].end], w)
	}
	if !isName(i) {
		return i
	}
	first := i
	i++
	for toks[i].kind == kDot && isName(i+1) {
		i += 2
	}
	switch {
	case word(first, "DOUBLE") && word(i, "PRECISION"):
		i++
	case (word(first, "CHARACTER") || word(first, "CHAR") || word(first, "BIT") || word(first, "NCHAR")) && word(i, "VARYING"):
		i++
	}
	if toks[i].kind == kLParen {
		j := i + 1
		for toks[j].kind == kNumber || toks[j].kind == kComma || toks[j].kind == kParam {
			j++
		}
		if toks[j].kind == kRParen && j > i+1 {
			i = j + 1
		}
	}
	if (word(first, "TIMESTAMP") || word(first, "TIME")) && (word(i, "WITH") || word(i, "WITHOUT")) && word(i+1, "TIME") && word(i+2, "ZONE") {
		i += 3
	}
	for toks[i].kind == kLBracket {
		switch {
		case toks[i+1].kind == kRBracket:
			i += 2
		case toks[i+1].kind == kNumber && toks[i+2].kind == kRBracket:
			i += 3
		default:
			return i
		}
	}
	return i
}

// predicates fills Where and WhereExact from the WHERE of the outermost query.
func (p *parser) predicates() {
	if p.whereTo < 0 {
		return
	}
	// A word may have ended the WHERE that was a column's name (MySQL and SQLite
	// let "offset" be one), so no OR may follow later either.
	for i := p.whereTo; p.toks[i].kind != kEOF; i++ {
		if p.toks[i].kw == kwOr {
			return
		}
	}
	p.st.WhereExact = p.conjuncts(p.whereFrom, p.whereTo, 0)
}

// conjuncts reads the conditions AND-ed in tokens from to to. It reports whether
// each of them could be read.
func (p *parser) conjuncts(from, to, nesting int) bool {
	if from >= to || nesting > 16 {
		return false
	}
	if p.wrapped(from, to) {
		return p.conjuncts(from+1, to-1, nesting+1)
	}
	depth, between := 0, false
	start, exact := from, true
	// An OR at this level makes every condition optional, so may MySQL's "||", and
	// an AND inside a CASE is none of this level.
	for i := from; i < to; i++ {
		switch t := &p.toks[i]; {
		case t.kind == kLParen:
			depth++
		case t.kind == kRParen:
			depth--
		case depth == 0 && t.kind == kWord && (t.kw == kwOr || isWord(p.src(t), "XOR") || isWord(p.src(t), "CASE")):
			return false
		case depth == 0 && t.kind == kOp && p.src(t) == "||":
			return false
		}
	}
	for i := from; i <= to; i++ {
		t := &p.toks[i]
		if i < to {
			switch {
			case t.kind == kLParen:
				depth++
			case t.kind == kRParen:
				depth--
			case depth == 0 && t.kind == kWord && isWord(p.src(t), "BETWEEN"):
				between = true
			case depth == 0 && t.kw == kwAnd && between:
				between = false
				continue
			}
			if depth != 0 || t.kw != kwAnd {
				continue
			}
		}
		if p.wrapped(start, i) {
			exact = p.conjuncts(start+1, i-1, nesting+1) && exact
		} else {
			exact = p.condition(start, i) && exact
		}
		start = i + 1
	}
	return exact
}

// wrapped reports whether one parenthesis holds all of the tokens from to to.
func (p *parser) wrapped(from, to int) bool {
	if to-from < 2 || p.toks[from].kind != kLParen || p.toks[to-1].kind != kRParen {
		return false
	}
	depth := 0
	for i := from; i < to; i++ {
		switch p.toks[i].kind {
		case kLParen:
			depth++
		case kRParen:
			if depth--; depth == 0 {
				return i == to-1
			}
		}
	}
	return false
}

// condition reads one condition: column = value, value = column, column IN (…),
// column = ANY(…), or column IS NULL, which adds nothing to Where.
func (p *parser) condition(from, to int) bool {
	column, i := p.column(from, to)
	if column == "" {
		pred := Predicate{Table: p.single.Name, Op: "="}
		j := p.operand(from, to, &pred)
		if j == from || j >= to || p.src(&p.toks[j]) != "=" {
			return false
		}
		if pred.Column, i = p.column(j+1, to); pred.Column == "" || i != to {
			return false
		}
		p.st.Where = append(p.st.Where, pred)
		return true
	}
	t := &p.toks[i]
	if i >= to {
		return false
	}
	pred := Predicate{Table: p.single.Name, Column: column, Op: "="}
	switch {
	case t.kw == kwIs:
		return i+2 == to && p.toks[i+1].kw == kwNull
	case t.kind == kOp && p.src(t) == "=" && (p.toks[i+1].kw == kwAny || p.toks[i+1].kw == kwSome):
		pred.Op, pred.Array = "in", true
		if p.toks[i+2].kind != kLParen {
			return false
		}
		j := p.operand(i+3, to, &pred)
		if j != to-1 || p.toks[j].kind != kRParen {
			return false
		}
	case t.kind == kOp && p.src(t) == "=":
		if j := p.operand(i+1, to, &pred); j == i+1 || j != to {
			return false
		}
	case t.kw == kwIn && p.toks[i+1].kind == kLParen:
		pred.Op = "in"
		pred.Args = make([]int, 0, (to-i-2)/2)
		for i += 2; ; i++ {
			for p.toks[i].kind == kParam && p.toks[i].arg >= 0 && p.toks[i+1].kind == kComma { // most of a long list
				pred.Args = append(pred.Args, int(p.toks[i].arg))
				i += 2
			}
			j := p.operand(i, to, &pred)
			if j == i || j >= to {
				return false
			}
			if i = j; p.toks[i].kind != kComma {
				break
			}
		}
		if i != to-1 {
			return false
		}
	default:
		return false
	}
	p.st.Where = append(p.st.Where, pred)
	return true
}

// column reads a column of the single table at from and returns the token after
// it; the column is "" when something else stands there.
func (p *parser) column(from, to int) (string, int) {
	i := from
	for i < to {
		t := &p.toks[i]
		if t.kind != kQuoted && (t.kind != kWord || t.flags&fReserved != 0) {
			return "", from
		}
		if p.toks[i+1].kind != kDot {
			break
		}
		i += 2
	}
	if i >= to || p.toks[i+1].kind == kLParen {
		return "", from
	}
	if i > from {
		if q := p.ident(&p.toks[i-2]); q != p.single.Name && q != p.alias {
			return "", from
		}
	}
	return p.ident(&p.toks[i]), i + 1
}

// operand reads a parameter or literal with its casts and notes it in pred.
func (p *parser) operand(from, to int, pred *Predicate) int {
	t := &p.toks[from]
	i := from + 1
	switch {
	case from >= to:
		return from
	case t.kind == kParam && t.arg >= 0:
		pred.Args = append(pred.Args, int(t.arg))
	case t.kind == kParam, t.kind == kString, t.kind == kNumber, t.kw == kwTrue, t.kw == kwFalse:
		pred.Literal = true
	case t.kind == kOp && (p.src(t) == "-" || p.src(t) == "+") && p.toks[i].kind == kNumber:
		pred.Literal = true
		i++
	default:
		return from
	}
	for i < to && p.toks[i].kind == kCast {
		end := typeEnd(p.text, p.toks, i+1)
		if end == i+1 {
			break
		}
		pred.Cast = true
		i = end
	}
	return i
}
