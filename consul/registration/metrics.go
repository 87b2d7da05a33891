package registration

import (
	"github.com/prometheus/client_golang/prometheus"

	"sluice/observe/metrics"
)

var descriptions metrics.Descriptions

var (
	registered         = descriptions.New("registered", "1 if sluice is registered in Consul, else 0; absent without consul.register.", "service")
	registrationsTotal = descriptions.New("registrations_total", "Successful registrations of sluice with an agent of Consul.", "service")
	registrationErrors = descriptions.New("registration_errors_total", "Failed attempts to register sluice in Consul or to check the registration.", "service")
)

// Metrics returns the collector of what read returns.
func Metrics(read func() Status) prometheus.Collector {
	return descriptions.Collector(func(s metrics.Series) {
		status := read()
		if status.State == StateOff {
			return
		}
		s.Flag(registered, status.State == StateRegistered, status.Service)
		s.Counter(registrationsTotal, status.Registrations, status.Service)
		s.Counter(registrationErrors, status.Errors, status.Service)
	})
}
