package admin

import (
	"net/http"

	"sluice/config"
	"sluice/operator"
)

// logLevel answers GET /api/log.
func (h programHandler) logLevel(*http.Request) (any, error) { return h.LogLevel(), nil }

// setLogLevel answers POST /api/log/{level}; the level "release" returns to the configuration's.
func (h programHandler) setLogLevel(r *http.Request, o operator.Order) (any, error) {
	level := r.PathValue("level")
	switch {
	case level == "release":
		level = ""
	case !config.IsLogLevel(level):
		return nil, refuse(http.StatusBadRequest, "level %q: want debug, info, warn, error or release", level)
	}
	if err := h.SetLogLevel(level, o.By); err != nil {
		return nil, err
	}
	return h.logLevel(r)
}

// ready answers GET /api/ready: the answer of /readyz, always with status 200.
func (h programHandler) ready(*http.Request) (any, error) { return h.describeReadiness(), nil }

// turnReady answers POST /api/ready/off, after which sluice is not ready and serves, and
// /api/ready/on.
func (h programHandler) turnReady(off bool) func(*http.Request, operator.Order) (any, error) {
	return func(r *http.Request, o operator.Order) (any, error) {
		if err := h.TurnReady(off, o.Why, o.By); err != nil {
			return nil, err
		}
		return h.ready(r)
	}
}
