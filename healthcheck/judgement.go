package healthcheck

// judgement is what the active checks of a peer amount to.
type judgement struct {
	down    bool // the peer gets no requests
	checked bool // a check has ended
	against int  // latest checks in a row that speak against down being what it is
	failing bool // the latest check failed
}

// take takes in the result of a check.
func (j *judgement) take(passed bool, a *Active) {
	threshold := a.UnhealthyThreshold
	if j.down {
		threshold = a.HealthyThreshold
		if !j.checked { // nobody has said yet that it does not work
			threshold = 1
		}
	}
	j.checked, j.failing = true, !passed
	if passed != j.down {
		j.against = 0
		return
	}
	if j.against++; j.against >= threshold {
		j.down, j.against = !j.down, 0
	}
}

// settled reports whether nothing speaks against the peer, not even the
// latest check.
func (j *judgement) settled() bool { return !j.down && !j.failing }
