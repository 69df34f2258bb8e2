// The peer of bench/upload.py: PUT /name writes the body to a file and answers when it is durable.
package main

import (
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
)

func main() {
	folder := os.Args[1]
	put := func(answer http.ResponseWriter, request *http.Request) {
		file, err := os.Create(filepath.Join(folder, filepath.Base(request.URL.Path)))
		if err == nil {
			defer file.Close()
			if _, err = io.Copy(file, request.Body); err == nil {
				err = file.Sync()
			}
		}
		if err != nil {
			http.Error(answer, err.Error(), http.StatusInternalServerError)
			return
		}
		answer.WriteHeader(http.StatusCreated)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(listener.Addr())
	log.Fatal(http.Serve(listener, http.HandlerFunc(put)))
}
