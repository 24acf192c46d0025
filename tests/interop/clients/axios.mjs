// axios. Arguments: the folder of the packages, METHOD URL [TYPE FILE].
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const axios = createRequire(`${process.argv[2]}/`)("axios");
const [method, url, type, file] = process.argv.slice(3);
const data = file && readFileSync(file, "utf8");
const headers = type ? { "Content-Type": type } : {};
const validateStatus = () => true;
const response = await axios({ method, url, data, headers, validateStatus });
console.log(response.status);
