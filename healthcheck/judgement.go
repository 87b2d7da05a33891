package healthcheck

// judgement is what the active checks of a peer amount to.
type judgement struct {
	down    bool // the peer gets no requests
	checked bool // a check has ended
	against int  // latest checks in a row that speak against down being what it is
	failing bool // the latest check failed
}

// take takes in the result of a check. On probation one that fails is enough.
func (j *judgement) take(passed, probation bool, a *Active) {
	threshold := a.UnhealthyThreshold
	if probation {
		threshold = 1
	}
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

// stand reports whether j changes because the peer is on probation from now on:
// the latest check failed, which was not yet enough.
func (j *judgement) stand() bool {
	if j.down || !j.failing {
		return false
	}
	j.down, j.against = true, 0
	return true
}

// settled reports whether nothing speaks against the peer, not even the
// latest check.
func (j *judgement) settled() bool { return !j.down && !j.failing }
