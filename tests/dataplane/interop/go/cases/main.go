// grpc-go's own interoperation cases and test server with mutual TLS, which its programs have no flags for.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/interop"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
)

type unary = func(context.Context, testgrpc.TestServiceClient, ...grpc.CallOption)

var cases = map[string]unary{
	"empty_unary":                 interop.DoEmptyUnaryCall,
	"large_unary":                 interop.DoLargeUnaryCall,
	"client_streaming":            interop.DoClientStreaming,
	"server_streaming":            interop.DoServerStreaming,
	"ping_pong":                   interop.DoPingPong,
	"empty_stream":                interop.DoEmptyStream,
	"timeout_on_sleeping_server":  interop.DoTimeoutOnSleepingServer,
	"cancel_after_begin":          interop.DoCancelAfterBegin,
	"cancel_after_first_response": interop.DoCancelAfterFirstResponse,
	"status_code_and_message":     interop.DoStatusCodeAndMessage,
	"special_status_message":      interop.DoSpecialStatusMessage,
	"custom_metadata":             interop.DoCustomMetadata,
}

func configuration(folder, name string) *tls.Config {
	certificate, err := tls.LoadX509KeyPair(filepath.Join(folder, "cert.pem"), filepath.Join(folder, "key.pem"))
	if err != nil {
		log.Fatal(err)
	}
	bundle, err := os.ReadFile(filepath.Join(folder, "ca.pem"))
	if err != nil {
		log.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(bundle) {
		log.Fatal("ca.pem holds no certificate")
	}
	return &tls.Config{
		Certificates: []tls.Certificate{certificate},
		RootCAs:      pool,
		ClientCAs:    pool,
		ClientAuth:   tls.RequireAndVerifyClientCert,
		ServerName:   name,
	}
}

func main() {
	serve := flag.Bool("serve", false, "be the test server, on a port that is printed")
	target := flag.String("target", "", "host:port of the server to call")
	folder := flag.String("tls", "", "folder with cert.pem, key.pem and ca.pem; plain text without")
	name := flag.String("name", "", "the server's name in its certificate")
	compress := flag.Bool("gzip", false, "compress requests")
	flag.Parse()
	if *serve {
		options := []grpc.ServerOption{}
		if *folder != "" {
			options = append(options, grpc.Creds(credentials.NewTLS(configuration(*folder, ""))))
		}
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			log.Fatal(err)
		}
		server := grpc.NewServer(options...)
		testgrpc.RegisterTestServiceServer(server, interop.NewTestServer())
		fmt.Println(listener.Addr())
		log.Fatal(server.Serve(listener))
	}
	connection, err := grpc.NewClient(
		*target,
		grpc.WithTransportCredentials(credentials.NewTLS(configuration(*folder, *name))),
	)
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	options := []grpc.CallOption{}
	if *compress {
		options = append(options, grpc.UseCompressor(gzip.Name))
	}
	client := testgrpc.NewTestServiceClient(connection)
	for _, chosen := range flag.Args() {
		switch run, found := cases[chosen]; {
		case found:
			run(ctx, client, options...)
		case chosen == "unimplemented_method":
			interop.DoUnimplementedMethod(ctx, connection)
		case chosen == "unimplemented_service":
			interop.DoUnimplementedService(ctx, testgrpc.NewUnimplementedServiceClient(connection))
		default:
			log.Fatalf("no case %q", chosen)
		}
		fmt.Println("passed", chosen)
	}
}
