// Package app registers an application in Consul: it waits until the application works,
// registers it, keeps it registered, and deregisters it before it stops. The command
// "sluice register" does the same for programs in any language.
//
//	r, err := app.New(app.Options{Name: "star", Port: 9001, Check: app.Check{Path: "/health"}})
//	if err != nil {
//		return err
//	}
//	// ctx ends when the application has to stop. The server must serve until Run has returned.
//	if err := r.Run(ctx); err != nil {
//		return err
//	}
//	return server.Shutdown(context.Background())
//
// Consul may be away, also at the start: the application runs, and is registered when
// Consul is back. If the agent has lost the registration, it is registered again.
package app
