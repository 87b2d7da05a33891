package route

// Explanation is what Match decides about a request, and why.
type Explanation struct {
	Host, Path string // as the table compares them
	// Verdicts has all routes, in order.
	Verdicts []Verdict
}

// Verdict is why a route gets a request or not.
type Verdict struct {
	Route   *Route
	Outcome Outcome
	Failing string // of OutcomeCondition: the condition, for people
}

// Outcome is the kind of a [Verdict].
type Outcome string

const (
	OutcomeChosen    Outcome = "chosen"    // the first that matches
	OutcomeLater     Outcome = "later"     // it matches, after the chosen one
	OutcomeCondition Outcome = "condition" // host and path match, a condition does not hold
	OutcomePath      Outcome = "path"      // the host matches, the path does not
	OutcomeHost      Outcome = "host"      // the host does not match
)

// Explain explains what Match returns for the same arguments. It looks at all routes.
func (t *Table) Explain(host, path []byte, r Request) Explanation {
	var buf [maxHostLen]byte
	name := foldHost(buf[:0], host)
	x := Explanation{Host: string(name)}
	var scopes []*scope
	m := matching{path: targetPath(path), request: r, rank: noRank, trace: &scopes}
	if m.path != nil {
		t.match(&m, host)
		normal := m.normalPath()
		x.Path = string(normal[:max(1, len(normal)-1)])
	}
	defer m.giveBack()
	m.keepHost(name)
	fits := make(map[*scope]bool)
	for _, s := range scopes {
		for ; s != nil; s = s.parent {
			fits[s] = true
		}
	}
	chosen := false
	for _, e := range t.entries {
		v := e.verdict(&m, fits[e.scope])
		if v.Outcome == OutcomeChosen && chosen {
			v.Outcome = OutcomeLater
		}
		chosen = chosen || v.Outcome == OutcomeChosen
		x.Verdicts = append(x.Verdicts, v)
	}
	return x
}

// verdict returns the verdict about e as if it were the only route. fits: the trees of
// hosts and paths lead to it.
func (e *entry) verdict(m *matching, fits bool) Verdict {
	v := Verdict{Route: &e.route}
	host := hostTest{pattern: e.host}
	if e.hostTest != nil {
		host = e.hostTest.hosts[0]
	}
	switch {
	case !host.matches(m, m.host):
		v.Outcome = OutcomeHost
	case !fits || e.path.match == PathRegexp && !e.path.matches(m, m.normalPath()):
		v.Outcome = OutcomePath
	default:
		v.Outcome = OutcomeChosen
		if failing := e.conditions.failing(m); failing != nil {
			v.Outcome, v.Failing = OutcomeCondition, failing.String()
		}
	}
	return v
}
