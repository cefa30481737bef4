//! The pure core: everything that decides, and nothing that touches a clock, socket, thread, model or file.
