package routes

import (
	"sluice/config"
	"sluice/route"
)

// Foresee returns the route table that [Build] would make of c, for questions: it opens no file,
// asks nobody, and counts nothing. Its actions say what they require and do not carry it out.
func Foresee(c *config.Config, services map[string]*route.Service) (*route.Table, error) {
	b := newBuilder(c, services, new(Routes))
	b.asked = true
	return b.table()
}
