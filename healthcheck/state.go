package healthcheck

// checkState is the state of a peer's active checks.
type checkState struct {
	down     bool // the peer gets no requests
	checked  bool // a check has ended
	contrary int  // consecutive results that contradict down
	failing  bool // the latest check failed
}

// take records a result. On probation one failure is enough.
func (j *checkState) take(passed, probation bool, a *Active) {
	threshold := a.UnhealthyThreshold
	if probation {
		threshold = 1
	}
	if j.down {
		threshold = a.HealthyThreshold
		if !j.checked { // the first check decides
			threshold = 1
		}
	}
	j.checked, j.failing = true, !passed
	if passed != j.down {
		j.contrary = 0
		return
	}
	if j.contrary++; j.contrary >= threshold {
		j.down, j.contrary = !j.down, 0
	}
}

// startProbation reports whether the peer goes down because its latest check failed.
func (j *checkState) startProbation() bool {
	if j.down || !j.failing {
		return false
	}
	j.down, j.contrary = true, 0
	return true
}

// passing reports whether the peer is up and its latest check passed.
func (j *checkState) passing() bool { return !j.down && !j.failing }
